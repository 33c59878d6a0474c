package groupcommit_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"resource-lock-manager/internal/groupcommit"
)

// A transaction that withdraws amounts from one account. Concurrent calls of Do share it.
func Example() {
	balance := 100
	withdraw := func(amounts []int) ([]groupcommit.Result[int], error) {
		results := make([]groupcommit.Result[int], len(amounts)) // a real one begins a transaction
		for i, amount := range amounts {
			if amount > balance {
				results[i].Err = errors.New("the balance is too low")
				continue
			}
			balance -= amount
			results[i].Value = balance
		}
		return results, nil // and returns the error of its commit
	}
	account := groupcommit.New(withdraw, groupcommit.Config{MaxBatch: 100, MaxQueue: 1000})
	account.Start()
	defer account.Stop()

	left, err := account.Do(context.Background(), 70)
	if err != nil {
		log.Print(err)
		return
	}
	fmt.Println("left:", left)
	_, err = account.Do(context.Background(), 50)
	fmt.Println("refused:", err)
	// Output:
	// left: 30
	// refused: the balance is too low
}
