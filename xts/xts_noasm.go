//go:build (!amd64 && !arm64) || purego

package xts

import "keyway/internal/dataunit"

func native() []dataunit.Impl[opener] { return nil }
