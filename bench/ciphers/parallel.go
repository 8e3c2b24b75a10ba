package main

import (
	"context"
	"errors"
)

func runParallel(ctx context.Context, o options) error { return errors.New("later") }
