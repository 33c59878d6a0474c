package testdb

import (
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// NewStandby makes a cluster that follows this one and starts it. From then on a commit here waits until the standby has
// synced it too, so that nothing acknowledged is lost when this cluster is and the standby is promoted. A cluster has one
// standby at most; one that was promoted may have one in its turn.
func (c *Cluster) NewStandby() (*Cluster, error) {
	standby, err := newFolder(c.options)
	if err != nil {
		return nil, err
	}
	// The slot keeps what the standby still needs.
	if err := standby.run("pg_basebackup", "-d", c.URL("postgres"), "-D", standby.data(), "-R", "-C", "-S", "standby",
		"-c", "fast", "--no-sync"); err != nil {
		return nil, err
	}
	if err := standby.Start(); err != nil {
		return nil, err
	}
	// Set after it was copied: the standby must not wait for another one once it is promoted.
	if err := c.exec("ALTER SYSTEM SET synchronous_standby_names = '*'"); err != nil {
		return nil, err
	}
	if err := c.exec("SELECT pg_reload_conf()"); err != nil {
		return nil, err
	}
	return standby, c.waitUntilFollowed()
}

// waitUntilFollowed returns when commits wait for the standby.
func (c *Cluster) waitUntilFollowed() error {
	deadline := time.After(30 * time.Second)
	for {
		followed, err := c.isSo("SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'sync'")
		if err != nil || followed {
			return err
		}
		select {
		case <-deadline:
			return errors.New("the standby does not follow")
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Promote makes a standby the server that is written to, and returns when it is.
func (c *Cluster) Promote() error {
	promoted, err := c.isSo("SELECT pg_promote()")
	if err == nil && !promoted {
		err = errors.New("the standby is not promoted within a minute")
	}
	return err
}

// exec runs a statement as the cluster's administrator.
func (c *Cluster) exec(statement string) error {
	db, err := sql.Open("pgx", c.URL("postgres"))
	if err != nil {
		return err
	}
	defer db.Close()
	if _, err := db.Exec(statement); err != nil {
		return fmt.Errorf("%s: %w", statement, err)
	}
	return nil
}

// isSo asks what is answered by true or false.
func (c *Cluster) isSo(question string) (yes bool, err error) {
	db, err := sql.Open("pgx", c.URL("postgres"))
	if err != nil {
		return false, err
	}
	defer db.Close()
	if err := db.QueryRow(question).Scan(&yes); err != nil {
		return false, fmt.Errorf("%s: %w", question, err)
	}
	return yes, nil
}
