package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/exporter-toolkit/web"

	"github.com/duramendb/duramen/internal/service"
	"github.com/duramendb/duramen/internal/tlsfiles"
)

const (
	// readHeaderTimeout ends connections that send headers drop by drop.
	readHeaderTimeout = 10 * time.Second
	// idleTimeout is longer than the five minutes of Prometheus' remote write client: when the server closes first, the
	// client's next request meets a closed connection.
	idleTimeout = 6 * time.Minute
	// maxHeaderBytes leaves room for a query in the URL.
	maxHeaderBytes = 1 << 20
)

// httpServer is the listener and what serves it. There is no write timeout: each handler bounds its own time.
type httpServer struct {
	cfg      ServerConfig
	log      *slog.Logger
	handler  http.Handler // set before the start
	server   *http.Server
	listener atomic.Pointer[net.Listener]
	leaving  atomic.Bool // connections end with their next answer
}

func newHTTPServer(cfg ServerConfig, log *slog.Logger) (*httpServer, error) {
	s := &httpServer{cfg: cfg, log: log}
	secure, err := tlsfiles.Listener(cfg.HTTPTLS, log)
	if err != nil {
		return nil, fmt.Errorf("server.http_tls: %w", err)
	}
	if err := cfg.checkWebConfig(); err != nil {
		return nil, err
	}
	s.server = &http.Server{
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		TLSConfig:         secure,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	return s, nil
}

func (s *httpServer) service() *service.Service {
	return service.NewService("http server", service.Phases{
		Starting: s.starting, Running: s.running, Stopping: s.stopping,
	})
}

func (s *httpServer) starting(ctx context.Context) error {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", s.cfg.HTTPListenAddress)
	if err != nil {
		return fmt.Errorf("server.http_listen_address: %w", err)
	}
	s.server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.leaving.Load() {
			w.Header().Set("Connection", "close")
		}
		s.handler.ServeHTTP(w, r)
	})
	s.listener.Store(&l)
	s.log.Info("listening", "address", l.Addr().String())
	return nil
}

func (s *httpServer) running(ctx context.Context) error {
	ended := make(chan error, 1)
	go func() { ended <- s.serve() }()
	select {
	case <-ctx.Done():
		return errors.Join(s.server.Close(), closed(<-ended))
	case err := <-ended:
		// After drain there is nothing to serve until the service is stopped, last of all.
		if err = closed(err); err == nil {
			<-ctx.Done()
		}
		return err
	}
}

func (s *httpServer) serve() error {
	if s.cfg.WebConfigFile != "" {
		// It wraps the handler: passwords are asked for before anything of ours is, and the file is read anew each time.
		return web.Serve(*s.listener.Load(), s.server, &web.FlagConfig{WebConfigFile: &s.cfg.WebConfigFile}, s.log)
	}
	if s.server.TLSConfig != nil {
		return s.server.ServeTLS(*s.listener.Load(), "", "") // the files are those of TLSConfig
	}
	return s.server.Serve(*s.listener.Load())
}

// stopping closes a listener that was never served.
func (s *httpServer) stopping(error) error {
	if l := s.listener.Load(); l != nil {
		_ = (*l).Close() // closed already as a rule
	}
	return nil
}

// drain goes on serving for the shutdown delay, in which load balancers learn that this process is not ready and clients are
// asked to close their connections: a request that meets a connection which is being closed fails. Then it stops accepting
// and waits for requests that are running, at most the shutdown timeout; then it closes their connections.
func (s *httpServer) drain() {
	s.leaving.Store(true)
	if s.cfg.ShutdownDelay > 0 {
		time.Sleep(s.cfg.ShutdownDelay)
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.ShutdownTimeout)
	defer cancel()
	if err := s.server.Shutdown(ctx); err != nil {
		s.log.Warn("requests did not end in time, closing their connections", "timeout", s.cfg.ShutdownTimeout)
		_ = s.server.Close() // what it could say has been said
	}
}

// address is where the server listens; empty before it does.
func (s *httpServer) address() string {
	if l := s.listener.Load(); l != nil {
		return (*l).Addr().String()
	}
	return ""
}

func closed(err error) error {
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
