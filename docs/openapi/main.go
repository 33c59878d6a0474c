// Command openapi converts docs/swagger.json, which is all that the annotations can express, to docs/openapi.json in
// OpenAPI 3.0, and checks the result. "make generate" runs it.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/getkin/kin-openapi/openapi2"
	"github.com/getkin/kin-openapi/openapi2conv"
	"github.com/getkin/kin-openapi/openapi3"

	"resource-lock-manager/internal/version"
	"resource-lock-manager/internal/wire"
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
	v3.Info.Version = version.Number
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
	// Relative to the document itself, so that a proxy may serve all of it below a prefix.
	v3.Servers = openapi3.Servers{{URL: ".", Description: "this server"}}
	if err := addExamples(v3); err != nil {
		return err
	}
	addDatabaseHeader(v3)
	document, err := inOrder(v3)
	if err != nil {
		return err
	}
	out, err := json.MarshalIndent(document, "", "  ")
	if err != nil {
		return err
	}
	written, err := openapi3.NewLoader().LoadFromData(out)
	if err != nil {
		return err
	}
	if err := written.Validate(context.Background()); err != nil { // the examples too
		return err
	}
	return os.WriteFile(to, append(out, '\n'), 0o644)
}

// addDatabaseHeader adds to every answer the header that the API sets in one place.
func addDatabaseHeader(v3 *openapi3.T) {
	schema := openapi3.NewStringSchema().WithPattern("^[0-9a-f]{32}$")
	v3.Components.Headers = openapi3.Headers{wire.DatabaseHeader: &openapi3.HeaderRef{
		Value: &openapi3.Header{Parameter: openapi3.Parameter{
			Description: "The random id of the server's database. Servers with the same id share their locks. A client of several " +
				"servers compares it, so that it never takes the locks of two databases for the same.",
			Required: true,
			Schema:   schema.NewRef(),
			Example:  "5f2a9c0de41b47c38d70b6a1f3925e84",
		}},
	}}
	for _, item := range v3.Paths.Map() {
		for _, operation := range item.Operations() {
			for _, response := range operation.Responses.Map() {
				response.Value.Headers = openapi3.Headers{
					wire.DatabaseHeader: {Ref: "#/components/headers/" + wire.DatabaseHeader},
				}
			}
		}
	}
}

// inOrder returns what the document is made of, with the paths in the order of their list.
// Every path must be in the list, and nothing else.
func inOrder(v3 *openapi3.T) (any, error) {
	var list bytes.Buffer
	for i, path := range paths {
		if v3.Paths.Value(path) == nil {
			return nil, fmt.Errorf("the list of paths has %s, which no annotation has", path)
		}
		item, err := json.Marshal(v3.Paths.Value(path))
		if err != nil {
			return nil, err
		}
		if i > 0 {
			list.WriteByte(',')
		}
		fmt.Fprintf(&list, "%q:%s", path, item)
	}
	for path := range v3.Paths.Map() {
		if !slices.Contains(paths, path) {
			return nil, fmt.Errorf("%s is not in the list of paths", path)
		}
	}
	document, err := v3.MarshalYAML()
	if err != nil {
		return nil, err
	}
	parts := document.(map[string]any)
	parts["paths"] = json.RawMessage("{" + list.String() + "}")
	return parts, nil
}

// addExamples gives an example to every answer, every body and every required parameter;
// one that has none is an error. An optional parameter has none, because Swagger UI fills
// in the examples and sends them unless they are removed.
func addExamples(v3 *openapi3.T) error {
	for path, item := range v3.Paths.Map() {
		for method, operation := range item.Operations() {
			for _, p := range operation.Parameters {
				if !p.Value.Required {
					continue
				}
				if p.Value.Example = parameters[p.Value.Name]; p.Value.Example == nil {
					return fmt.Errorf("%s %s: parameter %s has no example", method, path, p.Value.Name)
				}
			}
			if body := operation.RequestBody; body != nil {
				if bodies[path] == nil {
					return fmt.Errorf("%s %s: the body has no example", method, path)
				}
				body.Value.Content["application/json"].Example = bodies[path]
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
				response.Value.Content["application/json"].Example = example
			}
		}
	}
	return nil
}
