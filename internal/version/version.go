// Package version states the version of the programs and of the API.
package version

import "runtime/debug"

// Number is the newest release that docs/CHANGELOG.md lists. "make generate" writes it
// into the OpenAPI document.
const Number = "0.1.0"

// String returns Number and, if the build recorded it, the commit: "0.1.0+afda979c2b1d".
// It ends with ".modified" if the working tree differed from the commit.
func String() string {
	info, _ := debug.ReadBuildInfo()
	return number(info)
}

func number(info *debug.BuildInfo) string {
	if info == nil {
		return Number
	}
	commit, modified := "", ""
	for _, setting := range info.Settings {
		switch {
		case setting.Key == "vcs.revision":
			commit = "+" + setting.Value[:min(12, len(setting.Value))]
		case setting.Key == "vcs.modified" && setting.Value == "true":
			modified = ".modified"
		}
	}
	if commit == "" {
		return Number
	}
	return Number + commit + modified
}
