package store

import (
	"context"
	"database/sql"
	"io/fs"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// Every file of the folder sql has one statement that its database accepts, after a
// comment that explains it. With -v the test prints the statements as they are sent.
func TestStatements(t *testing.T) {
	t.Parallel()
	used := map[string]bool{}
	for _, driver := range []string{SQLite, Postgres} {
		db, err := openInternal(t, driver).writer.DB()
		if err != nil {
			t.Fatal(err)
		}
		for _, pattern := range []string{"sql/*.sql", "sql/" + driver + "/*.sql"} {
			files, err := fs.Glob(sqlFiles, pattern)
			if err != nil {
				t.Fatal(err)
			}
			for _, file := range files {
				used[file] = true
				text := statement(strings.TrimPrefix(file, "sql/"))
				t.Logf("%s on %s:\n%s;\n\n", file, driver, text)
				if err := tryPrepare(db, text); err != nil {
					t.Errorf("%s on %s: %v", file, driver, err)
				}
			}
		}
	}
	err := fs.WalkDir(sqlFiles, "sql", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		if !used[path] {
			t.Errorf("%s belongs to no database", path)
		}
		checkFile(t, path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// tryPrepare returns the error of the database for a statement.
func tryPrepare(db *sql.DB, text string) error {
	prepared, err := db.PrepareContext(context.Background(), text)
	if err != nil {
		return err
	}
	defer prepared.Close()
	return nil
}

// checkFile checks what no database checks of a file of the folder sql.
func checkFile(t *testing.T, path string) {
	t.Helper()
	text, err := fs.ReadFile(sqlFiles, path)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(text), "-- ") || strings.Count(string(text), ";\n") != 1 ||
		!strings.HasSuffix(string(text), ";\n") {
		t.Errorf("%s is not a comment and one statement that ends with a semicolon", path)
	}
	sent := statement(strings.TrimPrefix(path, "sql/"))
	for _, wrong := range []string{"{{", "}}", "--", "?", "@"} { // GORM replaces the last two
		if strings.Contains(sent, wrong) {
			t.Errorf("%s: %q is sent to the database", path, wrong)
		}
	}
	next := 1
	for _, match := range regexp.MustCompile(`\$(\d+)`).FindAllStringSubmatch(sent, -1) {
		switch n, err := strconv.Atoi(match[1]); {
		case err != nil || n > next:
			t.Errorf("%s: %s appears before $%d, but SQLite counts parameters as they appear", path, match[0], next)
		case n == next:
			if comment, _, _ := strings.Cut(string(text), "\n\n"); !strings.Contains(comment, "--   $1") {
				t.Errorf("%s: the comment does not explain the parameters", path)
			}
			next++
		}
	}
}

// Every field of a row is a column, and the field's JSON key is the name of that column.
func TestColumnsAreTheFieldsOfTheirRows(t *testing.T) {
	t.Parallel()
	checkColumns(t, lockColumns)
	checkColumns(t, waiterColumns)
	checkColumns(t, eventColumns)
}

func checkColumns[R any](t *testing.T, columns []column[R]) {
	t.Helper()
	var row R
	declared := map[any]string{} // names of columns by the address of the field
	for _, c := range columns {
		field := c.field(&row)
		if other, twice := declared[field]; twice {
			t.Errorf("%T: the columns %s and %s have the same field", row, other, c.name)
		}
		declared[field] = c.name
		valueOf(field) // panics if the type of the field cannot be stored
	}
	value := reflect.ValueOf(&row).Elem()
	for i := range value.NumField() {
		field := value.Type().Field(i)
		key, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		name, found := declared[value.Field(i).Addr().Interface()]
		if key == "-" {
			key = ""
		}
		if key != name {
			t.Errorf("%T: the field %s has the JSON key %q and the column %q (declared: %v)", row, field.Name, key, name, found)
		}
	}
}
