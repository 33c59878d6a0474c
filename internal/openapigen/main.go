// Command openapigen converts docs/swagger.json, which swag generates from the
// annotations of package api, to docs/openapi.json in OpenAPI 3.0. It adds what
// annotations cannot express, and what would have to be repeated in each of them. It
// checks the result. "make generate" runs it.
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
		fmt.Fprintln(os.Stderr, "openapigen:", err)
		os.Exit(1)
	}
}

func convert(from, to string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	// The names of our packages are of no interest to readers of the document.
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
	// As in FastAPI, a location consists of names and positions.
	v3.Components.Schemas["Fault"].Value.Properties["loc"].Value.Items = &openapi3.SchemaRef{
		Value: openapi3.NewAnyOfSchema(openapi3.NewStringSchema(), openapi3.NewIntegerSchema()),
	}
	for _, name := range []string{"AcquireRequest", "RenewRequest", "RenewAllRequest"} {
		// The annotations have no exclusive minimum.
		v3.Components.Schemas[name].Value.Properties["ttl_seconds"].Value.WithMin(0).WithExclusiveMin(true)
	}
	// Relative to the document itself, so that a proxy may serve the API below a prefix.
	v3.Servers = openapi3.Servers{{URL: ".", Description: "this server"}}
	if err := addCommonFailures(v3); err != nil {
		return err
	}
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
	if err := written.Validate(context.Background()); err != nil { // including the examples
		return err
	}
	return os.WriteFile(to, append(out, '\n'), 0o644)
}

// addCommonFailures adds to every operation with parameters or a body the failures that
// all such operations have. The annotations describe them once, for POST /locks/request.
func addCommonFailures(v3 *openapi3.T) error {
	described := v3.Paths.Value("/locks/request").Post.Responses
	for path, item := range v3.Paths.Map() {
		for method, operation := range item.Operations() {
			var statuses []string
			if operation.RequestBody != nil {
				statuses = []string{"413", "415", "422", "500", "503"}
			} else if len(operation.Parameters) > 0 {
				statuses = []string{"422", "500", "503"}
			}
			for _, status := range statuses {
				if operation.Responses.Value(status) != nil && operation.Responses != described {
					return fmt.Errorf("%s %s: the annotation repeats the response %s", method, path, status)
				}
				operation.Responses.Set(status, described.Value(status))
			}
		}
	}
	return nil
}

// addDatabaseHeader adds the header to every response.
func addDatabaseHeader(v3 *openapi3.T) {
	schema := openapi3.NewStringSchema().WithPattern("^[0-9a-f]{32}$")
	v3.Components.Headers = openapi3.Headers{wire.DatabaseHeader: &openapi3.HeaderRef{
		Value: &openapi3.Header{Parameter: openapi3.Parameter{
			Description: "The random id of the server's database. Servers with the same id share their locks. A client of several " +
				"servers compares the ids, so that it does not mix up the locks of two databases.",
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

// inOrder returns the parts of the document, with the paths in the order of the list
// paths. It returns an error unless the list has exactly the paths of the document.
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

// addExamples adds an example to every response, every body and every required parameter.
// It returns an error if there is none. Optional parameters get no example, because
// Swagger UI sends examples unless the user removes them.
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
				example := responses[path][status]
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
