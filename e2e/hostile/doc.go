// Package hostile owns the story of a tenant that asks for everything, again and again, beside one that asks for little. It
// refuses to be impressed by answers: memory, statuses and turns are what it looks at. Read package querier next.
package hostile
