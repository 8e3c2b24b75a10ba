//go:build (!amd64 && !arm64) || purego

package sm4xts

import "keyway/internal/dataunit"

func native() []dataunit.Impl[opener] { return nil }
