// Package ctl holds the stories of duramenctl: the tool as a process, against servers and object stores that are
// processes too. It refuses to look into either; it reads outputs and exit codes as a script would. Read
// cmd/duramenctl/README.md for what the commands promise.
package ctl
