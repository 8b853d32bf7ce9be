package app

import (
	"errors"
	"net"
	"strings"
)

// defaultGRPCPort is the port that a member has which has a machine for itself.
const defaultGRPCPort = "9095"

// instanceID is the name that this process has among the members when none is set: the machine's name, and what tells
// processes of one machine apart, for no two of them listen on one port. A port that the system chooses says nothing; then
// it is the data directory's own name.
func instanceID(set, hostname, grpcListenAddress, storageID string) (string, error) {
	if set != "" {
		return set, nil
	}
	if hostname == "" {
		return "", errors.New("ring.instance_id is empty, and this machine has no name; set one")
	}
	_, port, err := net.SplitHostPort(grpcListenAddress)
	switch {
	case err != nil:
		return "", err
	case port == defaultGRPCPort:
		return hostname, nil
	case port == "0":
		return hostname + ":" + strings.ToLower(storageID[max(0, len(storageID)-8):]), nil
	default:
		return hostname + ":" + port, nil
	}
}

// advertised is the host:port at which other members reach a listener on the address listen, whose port is known by now.
// set is a host, a host:port, or empty. The host is empty when listen stands for every address of this machine: then the
// one counts that is advertised for gossip.
func advertised(set, listen, port string) (string, error) {
	if set != "" {
		if _, _, err := net.SplitHostPort(set); err == nil {
			return set, nil
		}
		return net.JoinHostPort(strings.Trim(set, "[]"), port), nil
	}
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return "", err
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = ""
	}
	return net.JoinHostPort(host, port), nil
}
