package deploy

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// object is the part of Kubernetes' objects that is looked at.
type object struct {
	Kind     string
	Metadata struct{ Name, Namespace string }
	Data     map[string]string
	Spec     struct {
		Replicas       int
		ServiceName    string                `yaml:"serviceName"`
		UpdateStrategy struct{ Type string } `yaml:"updateStrategy"`
		Selector       yaml.Node             // of labels in a Service, of matchLabels elsewhere
		Template       struct {
			Metadata struct{ Labels map[string]string }
			Spec     podSpec
		}
		VolumeClaimTemplates []struct{ Metadata struct{ Name string } } `yaml:"volumeClaimTemplates"`
	}
}

type podSpec struct {
	EnableServiceLinks *bool `yaml:"enableServiceLinks"`
	SecurityContext    struct {
		RunAsNonRoot bool `yaml:"runAsNonRoot"`
	} `yaml:"securityContext"`
	Containers []struct {
		Image string
		Args  []string
		Env   []struct {
			Name, Value string
			ValueFrom   struct {
				FieldRef struct {
					FieldPath string `yaml:"fieldPath"`
				} `yaml:"fieldRef"`
			} `yaml:"valueFrom"`
		}
		ReadinessProbe struct {
			HTTPGet struct{ Path string } `yaml:"httpGet"`
		} `yaml:"readinessProbe"`
		SecurityContext struct {
			ReadOnlyRootFilesystem bool `yaml:"readOnlyRootFilesystem"`
		} `yaml:"securityContext"`
		VolumeMounts []struct{ Name string } `yaml:"volumeMounts"`
	}
	Volumes []struct{ Name string }
}

// TestKubernetesManifests builds the manifests and holds them against themselves and the binary: every selector finds pods,
// every service that is named exists, and each role starts with the settings that its pods have.
func TestKubernetesManifests(t *testing.T) {
	objects := kustomized(t)
	var settings []string
	services, pods := map[string]bool{}, map[string]map[string]string{}
	for _, o := range objects {
		switch o.Kind {
		case "ConfigMap":
			for k, v := range o.Data {
				settings = append(settings, k+"="+v)
			}
		case "Service":
			services[o.Metadata.Name] = true
		case "Deployment", "StatefulSet":
			pods[o.Metadata.Name] = o.Spec.Template.Metadata.Labels
		}
	}
	require.NotEmpty(t, settings)
	require.Contains(t, strings.Join(settings, " "), "=duramen-gossip.duramen.svc:7946")
	require.True(t, services["duramen-gossip"])

	zones := map[string]bool{}
	for _, o := range objects {
		if want := selected(t, o); want != nil {
			matches := slices.ContainsFunc(slices.Collect(maps.Values(pods)), func(l map[string]string) bool { return contains(l, want) })
			require.True(t, matches, "%s %s selects %v, and no pod has that", o.Kind, o.Metadata.Name, want)
		}
		if o.Kind != "Deployment" && o.Kind != "StatefulSet" {
			continue
		}
		name, spec := o.Metadata.Name, o.Spec.Template.Spec
		require.True(t, contains(o.Spec.Template.Metadata.Labels, selected(t, o)), name)
		others := 0
		for _, labels := range pods {
			if contains(labels, selected(t, o)) {
				others++
			}
		}
		require.Equal(t, 1, others, "%s selects the pods of others", name)
		if o.Kind == "StatefulSet" {
			require.True(t, services[o.Spec.ServiceName], name)
		}
		require.Equal(t, new(bool), spec.EnableServiceLinks, "%s: DURAMEN_… of a service is no setting", name)
		require.True(t, spec.SecurityContext.RunAsNonRoot, name)
		c := spec.Containers[0]
		require.True(t, c.SecurityContext.ReadOnlyRootFilesystem, name)
		require.Equal(t, "/ready", c.ReadinessProbe.HTTPGet.Path, name)
		environment := slices.Clone(settings)
		for _, e := range c.Env {
			value := strings.ReplaceAll(e.Value, "$(POD_IP)", "10.1.2.3")
			switch {
			case e.ValueFrom.FieldRef.FieldPath == "metadata.name":
				value = name + "-0"
			case e.Name == "DURAMEN_RING_INSTANCE_ZONE":
				zones[value] = true
				require.Equal(t, "OnDelete", o.Spec.UpdateStrategy.Type, "%s: the zones restart one after another", name)
			}
			if strings.HasPrefix(e.Name, "DURAMEN_") {
				environment = append(environment, e.Name+"="+value)
			}
		}
		checkSettings(t, c.Args, environment)
	}
	require.Len(t, zones, 3)
}

func kustomized(t *testing.T) (objects []object) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), tool(t, "kubectl"), "kustomize", absolute(t, "deploy/kubernetes"))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, "%s", stderr.String())
	require.NotContains(t, stderr.String(), "deprecated")
	d := yaml.NewDecoder(bytes.NewReader(out))
	for {
		var o object
		err := d.Decode(&o)
		if errors.Is(err, io.EOF) {
			return objects
		}
		require.NoError(t, err)
		objects = append(objects, o)
	}
}

// selected returns the labels that an object selects pods by, nil when it selects none.
func selected(t *testing.T, o object) map[string]string {
	t.Helper()
	if o.Spec.Selector.IsZero() {
		return nil
	}
	if o.Kind == "Service" {
		var labels map[string]string
		require.NoError(t, o.Spec.Selector.Decode(&labels))
		return labels
	}
	var s struct {
		MatchLabels map[string]string `yaml:"matchLabels"`
	}
	require.NoError(t, o.Spec.Selector.Decode(&s))
	require.NotEmpty(t, s.MatchLabels)
	return s.MatchLabels
}

func contains(labels, want map[string]string) bool {
	for k, v := range want {
		if labels[k] != v {
			return false
		}
	}
	return true
}
