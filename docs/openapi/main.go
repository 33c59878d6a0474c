// Command openapi converts docs/swagger.json, which is all that the annotations can express, to docs/openapi.json in
// OpenAPI 3.0, and checks the result. "make generate" runs it.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/getkin/kin-openapi/openapi2"
	"github.com/getkin/kin-openapi/openapi2conv"
	"github.com/getkin/kin-openapi/openapi3"
)

func main() {
	if err := convert("docs/swagger.json", "docs/openapi.json"); err != nil {
		fmt.Fprintln(os.Stderr, "openapi:", err)
		os.Exit(1)
	}
}

func convert(from, to string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	// Readers of the API need not know our packages.
	names := strings.NewReplacer("wire.Success-wire_", "Success", "wire.", "")
	var v2 openapi2.T
	if err := json.Unmarshal([]byte(names.Replace(string(text))), &v2); err != nil {
		return err
	}
	v3, err := openapi2conv.ToV3(&v2)
	if err != nil {
		return err
	}
	for _, schema := range v3.Components.Schemas {
		for _, property := range schema.Value.Properties {
			if property.Value == nil {
				continue
			}
			if _, ok := property.Value.Extensions["x-nullable"]; ok {
				property.Value.Nullable = true
				delete(property.Value.Extensions, "x-nullable")
			}
		}
	}
	// As in FastAPI, a place is made of names and positions.
	v3.Components.Schemas["Fault"].Value.Properties["loc"].Value.Items = &openapi3.SchemaRef{
		Value: openapi3.NewAnyOfSchema(openapi3.NewStringSchema(), openapi3.NewIntegerSchema()),
	}
	if err := addExamples(v3); err != nil {
		return err
	}
	if err := v3.Validate(context.Background()); err != nil { // the examples too
		return err
	}
	out, err := json.MarshalIndent(v3, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(to, append(out, '\n'), 0o644)
}

// addExamples gives every parameter and every answer an example; one that has none is an error.
func addExamples(v3 *openapi3.T) error {
	for path, item := range v3.Paths.Map() {
		for method, operation := range item.Operations() {
			for _, p := range operation.Parameters {
				if p.Value.Example = parameters[p.Value.Name]; p.Value.Example == nil {
					return fmt.Errorf("%s %s: parameter %s has no example", method, path, p.Value.Name)
				}
			}
			for text, response := range operation.Responses.Map() {
				status, err := strconv.Atoi(text)
				if err != nil {
					return fmt.Errorf("%s %s: response %q: %w", method, path, text, err)
				}
				example := answers[path][status]
				if example == nil {
					example = failures[status]
				}
				if example == nil {
					return fmt.Errorf("%s %s: response %d has no example", method, path, status)
				}
				if response.Value.Content["application/json"].Example, err = plain(example); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// plain turns a value into the maps and lists that its JSON is made of.
func plain(v any) (any, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	var out any
	err = json.Unmarshal(text, &out)
	return out, err
}
