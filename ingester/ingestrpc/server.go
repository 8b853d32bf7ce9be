package ingestrpc

import (
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
)

// PushMethod is the full name of the call that carries push frames. One stream carries sections of many tenants, each named
// and validated by itself: an interceptor that wants a tenant in the metadata has to let this call pass.
const PushMethod = "/duramen.IngesterPush/Push"

// Server answers push streams from an ingester. Safe for concurrent use.
type Server struct{}

// NewServer returns a server that pushes into pusher. It starts nothing: Register it at a gRPC server that passes frames of
// package rpcframe.
func NewServer(cfg ServerConfig, pusher Pusher, log *slog.Logger, reg prometheus.Registerer) (*Server, error) {
	return &Server{}, nil
}

// Register adds the service to r.
func (s *Server) Register(r grpc.ServiceRegistrar) {}

// Drain answers what has arrived and ends the streams, so that the gRPC server can stop gracefully: a stream does not end
// by itself. Call it before GracefulStop.
func (s *Server) Drain() {}

// Wait returns when nothing runs any more that a call began. Call it after the gRPC server has stopped.
func (s *Server) Wait() {}
