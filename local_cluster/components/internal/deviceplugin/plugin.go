// Package deviceplugin tells a kubelet about GPUs that do not exist.
//
// It speaks the kubelet's device plugin protocol, so capacity, scheduling, allocation and health go the way they go
// with a real GPU's plugin; only the device behind them is missing. Kubernetes' own test stub of the protocol cannot
// change a device's health before the kubelet listens, nor notice a kubelet's restart in less than ten seconds, hence
// this one.
package deviceplugin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/klog/v2"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// visibleDevices is the variable that tells CUDA programs, through the container runtime, which devices are theirs.
const visibleDevices = "NVIDIA_VISIBLE_DEVICES"

// Plugin offers devices to the kubelet whose registration socket is in Dir.
type Plugin struct {
	api.UnimplementedDevicePluginServer

	// Resource is the name pods ask for, such as nvidia.com/gpu.
	Resource string
	// Devices are the names of the devices; a container sees them in NVIDIA_VISIBLE_DEVICES.
	Devices []string
	// Dir is the kubelet's device plugin folder.
	Dir string
	// UnhealthyFile names, one on a line, the devices to report as Unhealthy. It need not exist.
	UnhealthyFile string
	// Interval is the time between two looks at UnhealthyFile and at the kubelet's socket.
	Interval time.Duration
}

// socket is the plugin's own socket.
func (p *Plugin) socket() string {
	return filepath.Join(p.Dir, strings.ReplaceAll(p.Resource, "/", "-")+".sock")
}

// kubeletSocket is where the kubelet accepts registrations.
func (p *Plugin) kubeletSocket() string { return filepath.Join(p.Dir, "kubelet.sock") }

// Run serves and registers until ctx ends. A kubelet that restarts empties Dir, which ends one session; the next one
// registers again.
func (p *Plugin) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := p.session(ctx); err != nil && ctx.Err() == nil {
			klog.InfoS("Waiting for the kubelet", "reason", err)
			sleep(ctx, p.Interval)
		}
	}
	return ctx.Err()
}

// session serves one life of the kubelet: it returns when the kubelet's socket was replaced or ours removed.
func (p *Plugin) session(ctx context.Context) error {
	kubelet, err := os.Stat(p.kubeletSocket())
	if err != nil {
		return err
	}
	if err := os.Remove(p.socket()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	listener, err := net.Listen("unix", p.socket())
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	api.RegisterDevicePluginServer(server, p)
	go server.Serve(listener) //nolint:errcheck // ends with Stop below
	defer server.Stop()
	if err := p.register(ctx); err != nil {
		return err
	}
	klog.InfoS("Registered", "resource", p.Resource, "devices", p.Devices)
	for sleep(ctx, p.Interval) {
		now, err := os.Stat(p.kubeletSocket())
		if err != nil || !os.SameFile(kubelet, now) {
			return errors.New("the kubelet restarted")
		}
		if _, err := os.Stat(p.socket()); err != nil {
			return errors.New("the kubelet removed our socket")
		}
	}
	return ctx.Err()
}

// register announces the plugin to the kubelet.
func (p *Plugin) register(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	connection, err := grpc.NewClient("unix://"+p.kubeletSocket(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	_, err = api.NewRegistrationClient(connection).Register(ctx, &api.RegisterRequest{
		Version:      api.Version,
		Endpoint:     filepath.Base(p.socket()),
		ResourceName: p.Resource,
		Options:      &api.DevicePluginOptions{},
	})
	return err
}

// GetDevicePluginOptions asks the kubelet for none of the optional calls.
func (p *Plugin) GetDevicePluginOptions(context.Context, *api.Empty) (*api.DevicePluginOptions, error) {
	return &api.DevicePluginOptions{}, nil
}

// ListAndWatch sends the devices at once and after every change of their health.
func (p *Plugin) ListAndWatch(_ *api.Empty, stream grpc.ServerStreamingServer[api.ListAndWatchResponse]) error {
	var sent []string
	for first := true; first || sleep(stream.Context(), p.Interval); first = false {
		unhealthy := p.unhealthy()
		if !first && slices.Equal(sent, unhealthy) {
			continue
		}
		if err := stream.Send(&api.ListAndWatchResponse{Devices: p.devices(unhealthy)}); err != nil {
			return err
		}
		klog.InfoS("Reported devices", "resource", p.Resource, "unhealthy", unhealthy)
		sent = unhealthy
	}
	return nil
}

// Allocate tells a container which devices it was given.
func (p *Plugin) Allocate(_ context.Context, request *api.AllocateRequest) (*api.AllocateResponse, error) {
	response := &api.AllocateResponse{}
	for _, container := range request.ContainerRequests {
		for _, id := range container.DevicesIds {
			if !slices.Contains(p.Devices, id) {
				return nil, fmt.Errorf("no device %q among %q", id, p.Devices)
			}
		}
		ids := slices.Sorted(slices.Values(container.DevicesIds))
		response.ContainerResponses = append(response.ContainerResponses, &api.ContainerAllocateResponse{
			Envs: map[string]string{visibleDevices: strings.Join(ids, ",")},
		})
	}
	return response, nil
}

// devices describes every device with its health.
func (p *Plugin) devices(unhealthy []string) []*api.Device {
	list := make([]*api.Device, 0, len(p.Devices))
	for _, id := range p.Devices {
		health := api.Healthy
		if slices.Contains(unhealthy, id) {
			health = api.Unhealthy
		}
		list = append(list, &api.Device{ID: id, Health: health})
	}
	return list
}

// unhealthy reads UnhealthyFile; a file that is not there names nothing.
func (p *Plugin) unhealthy() []string {
	content, err := os.ReadFile(p.UnhealthyFile)
	if err != nil {
		return nil
	}
	return strings.Fields(string(content))
}

// sleep waits for d and says whether ctx is still alive.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
