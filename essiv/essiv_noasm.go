//go:build (!amd64 && !arm64) || purego

package essiv

import "keyway/internal/dataunit"

func native() []dataunit.Impl[opener] { return nil }
