// Command guest is the first and only process of the emulated machine's Linux:
// it runs the jobs in /jobs.json and writes what became of them, one JSON object
// a line, to the second serial port. The machine is killed after the last.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"keyway/test/emulated/report"
)

func main() {
	out, err := prepare()
	if err == nil {
		err = checkMachine()
	}
	if err == nil {
		err = run(out)
	}
	if err != nil {
		fmt.Println("guest:", err) // on the console
	}
	time.Sleep(time.Hour) // the end of the first process is a kernel panic
}

func prepare() (*os.File, error) {
	for _, m := range []struct{ fs, at string }{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/tmp"}} {
		os.Mkdir(m.at, 0o755)
		if err := unix.Mount(m.fs, m.at, m.fs, 0, ""); err != nil {
			return nil, fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	out, err := os.OpenFile("/dev/ttyS1", os.O_WRONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	t := unix.Termios{Cflag: unix.B115200 | unix.CS8 | unix.CLOCAL, Ospeed: 115200, Ispeed: 115200}
	if err := unix.IoctlSetTermios(int(out.Fd()), unix.TCSETS, &t); err != nil {
		return nil, fmt.Errorf("set the serial port: %w", err)
	}
	return out, nil
}

func run(out io.Writer) error {
	text, err := os.ReadFile("/jobs.json")
	if err != nil {
		return err
	}
	var jobs []report.Job
	if err := json.Unmarshal(text, &jobs); err != nil {
		return err
	}
	enc := json.NewEncoder(out)
	for _, j := range jobs {
		if err := enc.Encode(report.Run(context.Background(), j)); err != nil {
			return err
		}
	}
	return nil
}
