// Package store owns how commands are told of a bucket: as a path or URL, or as the configuration file of a server. It
// creates nothing where a bucket should be, so that a mistyped path is an error and no empty bucket. Read package
// chunkstore/bucket/backend next, which opens it.
package store

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"go.yaml.in/yaml/v3"

	"github.com/duramendb/duramen/chunkstore/bucket/backend"
	"github.com/duramendb/duramen/internal/cli"
	"github.com/duramendb/duramen/internal/strictyaml"
)

// Help is for the text of -h of commands that take a bucket.
const Help = `A bucket is a directory, or s3://NAME/?endpoint=HOST:PORT with the names of the S3 settings as further
parameters, such as region=us-east-1, insecure=true or lookup=path. Keys come from the environment (AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY), from the shared credentials file, or from credentials_file=PATH.`

// Flags says which bucket.
type Flags struct {
	Bucket string
	Config string
}

// RegisterFlags registers -bucket and -config.
func (s *Flags) RegisterFlags(f *flag.FlagSet) {
	f.StringVar(&s.Bucket, "bucket", "", "The bucket: a `directory` or an s3:// URL.")
	f.StringVar(&s.Config, "config", "", "A server's configuration `file`: the bucket is the one that it names.")
}

// Given reports whether a bucket was named.
func (s *Flags) Given() bool { return s.Bucket != "" || s.Config != "" }

// Open opens the bucket that the flags name. The caller closes it.
func (s *Flags) Open(env cli.Env) (*backend.Store, error) {
	switch {
	case s.Bucket != "" && s.Config != "":
		return nil, cli.Usagef("-bucket and -config both name a bucket: give one")
	case s.Config != "":
		cfg, dir, err := readConfig(s.Config)
		if err != nil {
			return nil, err
		}
		return open(env, cfg, dir, false)
	case s.Bucket != "":
		return Open(env, s.Bucket, false)
	default:
		return nil, cli.Usagef("which bucket? Give -bucket=PATH, -bucket=s3://NAME/?endpoint=HOST or -config=FILE")
	}
}

// Open opens the bucket that a path or URL names. create says whether a directory that does not exist is made.
func Open(env cli.Env, text string, create bool) (*backend.Store, error) {
	cfg, err := backend.ParseURL(text)
	if err != nil {
		return nil, cli.Usagef("%w", err)
	}
	return open(env, cfg, "", create)
}

func open(env cli.Env, cfg backend.Config, defaultDir string, create bool) (*backend.Store, error) {
	if cfg.Backend == backend.Filesystem && !create {
		dir := cfg.Filesystem.Directory
		if dir == "" {
			dir = defaultDir
		}
		info, err := os.Stat(dir)
		if err == nil && !info.IsDir() {
			err = fmt.Errorf("%s is no directory", dir)
		}
		if err != nil {
			return nil, fmt.Errorf("open bucket: %w", err)
		}
	}
	log := slog.New(slog.NewTextHandler(env.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	return backend.New(cfg, defaultDir, log, nil)
}

// NoBucket is the error of a place in which no tenant has anything: most often another directory than the bucket's.
func NoBucket(name string) error {
	return fmt.Errorf("%s does not look like a bucket: no tenant in it has a manifest (a data directory has its bucket in "+
		"its folder \"bucket\")", name)
}

// readConfig reads the bucket's section of a server's configuration file, and where its bucket is when that section does
// not say. The other sections are the server's to check.
func readConfig(name string) (cfg backend.Config, defaultDir string, err error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return cfg, "", fmt.Errorf("-config: %w", err)
	}
	cfg.RegisterFlags(flag.NewFlagSet("", flag.ContinueOnError))
	file := struct {
		DataDir string    `yaml:"data_dir"`
		Bucket  yaml.Node `yaml:"bucket"`
	}{DataDir: "./data"}
	if err := yaml.Unmarshal(data, &file); err != nil {
		return cfg, "", fmt.Errorf("-config %s: %w", name, err)
	}
	if file.Bucket.Kind != 0 {
		if err := strictyaml.DecodeNode(&file.Bucket, "bucket", &cfg); err != nil {
			return cfg, "", fmt.Errorf("-config %s: %w", name, err)
		}
	}
	if err := cfg.Validate(); err != nil {
		return cfg, "", fmt.Errorf("-config %s: bucket: %w", name, err)
	}
	return cfg, filepath.Join(file.DataDir, "bucket"), nil
}

// Close closes a bucket at the end of a command and joins its error to the command's.
func Close(s io.Closer, err *error) { *err = errors.Join(*err, s.Close()) }
