package peerconn

import (
	"context"
	"fmt"
	"log/slog"
	"net"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/duramendb/duramen/internal/tlsfiles"
)

// reloading are credentials whose every handshake goes by the files of now.
type reloading struct {
	files *tlsfiles.Files
	name  string // in place of the authority; "" for none
}

var _ credentials.TransportCredentials = (*reloading)(nil)

func (r *reloading) now() credentials.TransportCredentials {
	config := r.files.Current()
	if r.name != "" {
		config = config.Clone()
		config.ServerName = r.name
	}
	return credentials.NewTLS(config)
}

// ClientHandshake implements credentials.TransportCredentials.
func (r *reloading) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (
	net.Conn, credentials.AuthInfo, error,
) {
	return r.now().ClientHandshake(ctx, authority, conn)
}

// ServerHandshake implements credentials.TransportCredentials.
func (r *reloading) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return r.now().ServerHandshake(conn)
}

// Info implements credentials.TransportCredentials.
func (r *reloading) Info() credentials.ProtocolInfo { return r.now().Info() }

// Clone implements credentials.TransportCredentials.
func (r *reloading) Clone() credentials.TransportCredentials {
	return &reloading{files: r.files, name: r.name}
}

// OverrideServerName implements credentials.TransportCredentials.
func (r *reloading) OverrideServerName(name string) error {
	r.name = name
	return nil
}

func clientCredentials(c tlsfiles.ClientConfig, log *slog.Logger) (credentials.TransportCredentials, error) {
	if !c.Enabled {
		return insecure.NewCredentials(), nil
	}
	f, err := tlsfiles.OpenClient(c, log)
	if err != nil {
		return nil, fmt.Errorf("grpc_client.tls: %w", err)
	}
	return &reloading{files: f}, nil
}

// ServerCredentials returns what a gRPC server is to be given as its credentials: of TLS when c names files, else none.
// Files that change hold from the next handshake on. An error says what is wrong with them.
func ServerCredentials(c tlsfiles.ServerConfig, log *slog.Logger) (credentials.TransportCredentials, error) {
	if !c.Enabled() {
		return insecure.NewCredentials(), nil
	}
	f, err := tlsfiles.OpenServer(c, log)
	if err != nil {
		return nil, err
	}
	return &reloading{files: f}, nil
}
