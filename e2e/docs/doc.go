// Package docs runs the examples of README.md and docs/: what a reader pastes works, and answers what the page says. It
// knows Markdown and processes, and nothing of what the pages are about. Read docs/README.md next for how a page says what
// is run and what is compared.
package docs
