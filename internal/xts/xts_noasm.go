package xts

func native() []implementation { return nil }
