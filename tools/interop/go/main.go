// Command interop drives rocketmq-client-go for the interoperability suite: it reads its scenario from the arguments
// and prints JSON lines that the runner checks.
package main

import (
	"fmt"
	"os"

	"github.com/apache/rocketmq-client-go/v2/rlog"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: interop send|consume|pull|request|transact [--name value]...")
		os.Exit(2)
	}
	rlog.SetLogLevel("warn")
	a := parse(os.Args[2:])
	switch os.Args[1] {
	case "send":
		send(a)
	case "consume":
		consume(a)
	case "pull":
		pull(a)
	case "request":
		request(a)
	case "transact":
		transact(a)
	default:
		fmt.Fprintln(os.Stderr, "unknown verb", os.Args[1])
		os.Exit(2)
	}
}
