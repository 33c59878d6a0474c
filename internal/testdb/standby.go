package testdb

import (
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// NewStandby makes a cluster that follows this one and starts it. From then on a commit
// on this cluster waits until the standby has synced it too. So nothing acknowledged is
// lost when this cluster is lost and the standby is promoted. A cluster has at most one
// standby. A promoted standby may have one of its own.
func (c *Cluster) NewStandby() (*Cluster, error) {
	standby, err := newFolder(c.options)
	if err != nil {
		return nil, err
	}
	// The slot keeps the log that the standby still needs.
	if err := standby.run("pg_basebackup", "-d", c.URL("postgres"), "-D", standby.data(), "-R", "-C", "-S", "standby",
		"-c", "fast", "--no-sync"); err != nil {
		return nil, err
	}
	if err := standby.Start(); err != nil {
		return nil, err
	}
	// This setting is made after the copy: a promoted standby must not wait for another
	// one.
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
		followed, err := c.isTrue("SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'sync'")
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

// Promote makes a standby the primary, and returns when it accepts writes.
func (c *Cluster) Promote() error {
	promoted, err := c.isTrue("SELECT pg_promote()")
	if err == nil && !promoted {
		err = errors.New("the standby was not promoted within a minute")
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

// isTrue runs a query that returns one boolean.
func (c *Cluster) isTrue(question string) (yes bool, err error) {
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
