package main

import "strconv"

// args is the scenario of a run: "--name value" pairs.
type args map[string]string

func parse(argv []string) args {
	a := args{}
	for i := 0; i+1 < len(argv); i += 2 {
		a[argv[i][2:]] = argv[i+1]
	}
	return a
}

func (a args) text(name, otherwise string) string {
	if value, ok := a[name]; ok {
		return value
	}
	return otherwise
}

func (a args) number(name string, otherwise int) int {
	if value, err := strconv.Atoi(a[name]); err == nil {
		return value
	}
	return otherwise
}
