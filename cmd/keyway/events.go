package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"keyway/control"
)

func (c *cli) events() *cobra.Command {
	var count uint64
	var since string
	cmd := &cobra.Command{
		Use:   "events [DEVICE...]",
		Short: "Print what happens to devices and keys, a line for each event, until interrupted",
		Long: `Print what happens to devices and keys, a line for each event, until interrupted:
number, time, kind, device or key, details. With devices named, only events of
those, and of keys that they cannot work without. A device need not be there yet.

The daemon keeps the last 1024 events: --since N begins after event N, 0 with the
oldest. Events are numbered from 1 at each start of the daemon; --since WORD:N, with
the word that --json prints as "daemon", begins anew if it is another daemon now.
Who reads too slowly gets an event "lost" with the number of those that are gone;
the daemon never waits for a reader.`,
		Example: `  keyway events vol
  keyway events --since 0 --count 10 --json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("count") && count == 0 {
				return misusef("events: --count 0 is no event at all")
			}
			from := control.EventsFrom{Devices: args}
			if cmd.Flags().Changed("since") {
				word, number, both := strings.Cut(since, ":")
				if !both {
					word, number = "", since
				}
				n, err := strconv.ParseUint(number, 10, 64)
				if err != nil {
					return misusef("events: --since %q is not the number of an event", since)
				}
				from.Since, from.Daemon = &n, word
			}
			return c.printEvents(cmd.Context(), from, count)
		},
	}
	cmd.Flags().Uint64Var(&count, "count", 0, "end after so many `events` (default: when interrupted)")
	cmd.Flags().StringVar(&since, "since", "", "begin after the event of this `number` (default: the newest)")
	return c.withTimeout(c.withJSON(cmd), "end after this `duration` (default: when interrupted)")
}

// printEvents prints so many events, or all for 0. An interruption is the end that
// the user wants.
func (c *cli) printEvents(ctx context.Context, from control.EventsFrom, count uint64) error {
	if c.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	client := c.client()
	client.Timeout = 0
	enc := json.NewEncoder(os.Stdout)
	enc.SetEscapeHTML(false)
	n := uint64(0)
	for e, err := range client.Events(ctx, from) {
		switch {
		case err != nil && ctx.Err() != nil && (count == 0 || errors.Is(context.Cause(ctx), context.Canceled)):
			return nil
		case err != nil && ctx.Err() != nil:
			return fmt.Errorf("%d of %d events within %v", n, count, c.timeout)
		case err != nil:
			return err
		case c.json:
			err = enc.Encode(e)
		default:
			_, err = fmt.Println(eventLine(e))
		}
		if err != nil {
			return err
		}
		if n++; n == count {
			return nil
		}
	}
	return nil
}

// eventLine is an event for people.
func eventLine(e control.Event) string {
	words := []string{strconv.FormatUint(e.Seq, 10), e.Time.Local().Format("2006-01-02T15:04:05.000Z07:00"), e.Kind}
	switch {
	case e.Device != "":
		words = append(words, e.Device)
	case e.Key != "":
		words = append(words, "key "+strconv.Quote(e.Key))
	}
	var details []string
	if e.From != "" {
		details = append(details, "was "+e.From)
	}
	if e.Detail != "" {
		details = append(details, e.Detail)
	}
	if e.Kind == control.EventKeyEvicted && e.Places > 0 {
		details = append(details, counted(int64(e.Places), "place"))
	}
	if e.OldProfile != nil && e.NewProfile != nil {
		details = append(details, profileChange(*e.OldProfile, *e.NewProfile)...)
	}
	if len(e.Devices) > 0 {
		details = append(details, "cannot work without it: "+strings.Join(e.Devices, " "))
	}
	if e.Kind == control.EventLost {
		details = append(details, counted(int64(e.Lost), "event"))
	}
	if e.Error != "" {
		details = append(details, "FAILED: "+strings.ReplaceAll(e.Error, "\n", "; "))
	}
	line := strings.Join(words, " ")
	if len(details) > 0 {
		line += ": " + strings.Join(details, "; ")
	}
	return line
}

// profileChange says what came and went, with what is left.
func profileChange(before, after []control.Config) (details []string) {
	for _, part := range []struct {
		sign string
		list []control.Config
	}{{"-", without(before, after)}, {"+", without(after, before)}} {
		for _, l := range folded(part.list) {
			f := strings.Split(l, "\t") // mode, key type, data units, DUN bytes
			details = append(details, fmt.Sprintf("%s%s %s units %s", part.sign, f[0], f[1], f[2]))
		}
	}
	if len(after) == 0 {
		details = append(details, "engines beneath serve nothing")
	}
	return details
}

// counted is "1 thing" or "2 things".
func counted(n int64, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
