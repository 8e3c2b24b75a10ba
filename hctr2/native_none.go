//go:build (!amd64 && !arm64) || purego

package hctr2

import "keyway/internal/dataunit"

func native() []dataunit.Impl[implementation] { return nil }
