package main

import (
	"fmt"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"keyway/control"
	"keyway/internal/daemon"
	"keyway/internal/size"
)

func (c *cli) export() *cobra.Command {
	cmd := &cobra.Command{
		Use: "export", Short: "Exports: add, list, remove", Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return misusef("export: a command is missing: add, list or remove")
		},
	}
	cmd.AddCommand(c.exportAdd(), c.exportList(), c.exportRemove())
	return cmd
}

func (c *cli) exportAdd() *cobra.Command {
	var e control.Export
	var t control.TLS
	cmd := &cobra.Command{
		Use:   "add DEVICE --nbd URI",
		Short: "Serve a device over NBD, and print the URI for clients",
		Long: `Serve a device over NBD, and print the URI for clients. Many exports may share one
socket, and one device may have many exports. The forms of URI:

  unix:PATH                        nbd+unix:///NAME?socket=PATH
  tcp:HOST:PORT                    nbd://HOST[:PORT]/NAME

A Unix socket is for the daemon's user alone.`,
		Args: exactly("DEVICE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			e.Device = args[0]
			if e.NBD == "" {
				return misusef("export add: --nbd is missing, such as unix:%s.sock", args[0])
			}
			dir, err := os.Getwd()
			if err != nil {
				return err
			}
			if e.NBD, err = daemon.AbsNBD(e.NBD, dir); err != nil {
				return misusef("export add: --nbd: %w", err)
			}
			if t != (control.TLS{}) {
				e.TLS = &t
				for _, p := range []*string{&t.Cert, &t.Key, &t.CA} {
					if *p != "" && !filepath.IsAbs(*p) {
						*p = filepath.Join(dir, *p)
					}
				}
			}
			made, err := c.client().AddExport(cmd.Context(), e)
			if err != nil {
				return err
			}
			if c.json {
				return printJSON(made)
			}
			fmt.Println(made.URI)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&e.NBD, "nbd", "", "where to listen (`URI`)")
	f.StringVar(&e.Name, "name", "", "`name` by which clients ask for it (default: that in the URI, else the device's)")
	f.BoolVar(&e.ReadOnly, "read-only", false, "refuse writes")
	f.StringVar(&t.Cert, "tls-cert", "", "PEM `file` with the server's certificate: clients must use TLS")
	f.StringVar(&t.Key, "tls-key", "", "PEM `file` with its key")
	f.StringVar(&t.CA, "tls-ca", "", "PEM `file` with the CA of the clients' certificates")
	f.BoolVar(&t.ClientAuth, "tls-client-auth", false, "clients must show a certificate")
	return c.withTimeout(c.withJSON(cmd), giveUp)
}

func (c *cli) exportList() *cobra.Command {
	return c.withJSON(&cobra.Command{
		Use: "list", Short: "List the exports and their connections", Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := c.client().Exports(cmd.Context())
			if err != nil {
				return err
			}
			if c.json {
				return printJSON(all)
			}
			w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
			fmt.Fprintln(w, "NAME\tDEVICE\tMODE\tTLS\tCONNECTIONS\tSTATE\tAT")
			for _, e := range all {
				mode, tls, at := "rw", "no", e.URI
				if e.ReadOnly {
					mode = "ro"
				}
				if e.TLS != nil {
					tls = "yes"
				}
				if at == "" {
					at = e.NBD
				}
				state := e.State
				if state != "serving" {
					state = "not serving"
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\t%s\n", e.Name, e.Device, mode, tls, len(e.Connections), state, at)
				for _, x := range e.Connections {
					fmt.Fprintf(w, "  %s\t\t\t\t\tsince %s, read %s, written %s, %d in flight\t\n", x.Peer,
						x.Since.Format(time.RFC3339), size.Format(int64(x.BytesRead)), size.Format(int64(x.BytesWritten)), x.InFlight)
				}
			}
			w.Flush()
			for _, e := range all {
				if e.State != "serving" {
					warn("export %q does not work: %s", e.Name, e.State)
				}
			}
			return nil
		},
	})
}

func (c *cli) exportRemove() *cobra.Command {
	var r control.RemoveExport
	cmd := &cobra.Command{
		Use:   "remove NAME",
		Short: "End an export: clients' requests under way are answered, then they are cut off",
		Args:  exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Name = args[0]
			if r.NBD != "" {
				dir, err := os.Getwd()
				if err != nil {
					return err
				}
				if r.NBD, err = daemon.AbsNBD(r.NBD, dir); err != nil {
					return misusef("export remove: --nbd: %w", err)
				}
			}
			return changed(c.client().RemoveExport(cmd.Context(), r))
		},
	}
	cmd.Flags().StringVar(&r.NBD, "nbd", "", "where (`URI`), if several exports have the name")
	return c.withTimeout(cmd, "cut clients off after this `duration` (default 10s)")
}
