// Package docs holds the API's description. swagger.json and swagger.yaml are generated
// from the annotations of the handlers, openapi.json from swagger.json: run "make
// generate".
package docs

import _ "embed"

// OpenAPI is the description in OpenAPI 3.0, as served at /openapi.json.
//
//go:embed openapi.json
var OpenAPI string
