package version

import (
	"runtime/debug"
	"testing"
)

func TestNumberHasTheCommit(t *testing.T) {
	t.Parallel()
	revision := debug.BuildSetting{Key: "vcs.revision", Value: "0123456789abcdef0123456789abcdef01234567"}
	for name, test := range map[string]struct {
		info *debug.BuildInfo
		want string
	}{
		"no build info": {nil, Number},
		"no repository": {&debug.BuildInfo{}, Number},
		"a commit":      {build(revision), Number + "+0123456789ab"},
		"changed files": {
			build(revision, debug.BuildSetting{Key: "vcs.modified", Value: "true"}),
			Number + "+0123456789ab.modified",
		},
		"no changed files": {
			build(revision, debug.BuildSetting{Key: "vcs.modified", Value: "false"}),
			Number + "+0123456789ab",
		},
		"a short revision": {build(debug.BuildSetting{Key: "vcs.revision", Value: "17"}), Number + "+17"},
	} {
		if got := number(test.info); got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

func build(settings ...debug.BuildSetting) *debug.BuildInfo {
	return &debug.BuildInfo{Settings: settings}
}
