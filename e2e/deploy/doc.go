// Package deploy checks what ../../deploy offers to copy: configurations, dashboards and alerts, with the tools that will
// read them and a server that answers. It has tests only. Read ../../deploy/grafana/README.md next.
package deploy
