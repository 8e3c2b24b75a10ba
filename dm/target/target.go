// Package target holds the targets of device-mapper tables, one file each.
// Importing it registers them all.
package target
