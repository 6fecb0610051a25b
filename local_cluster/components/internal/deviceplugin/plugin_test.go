package deviceplugin

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// kubelet is the kubelet's half of the protocol: it accepts registrations on a socket.
type kubelet struct {
	api.UnimplementedRegistrationServer
	registered chan *api.RegisterRequest
}

func (k *kubelet) Register(_ context.Context, request *api.RegisterRequest) (*api.Empty, error) {
	k.registered <- request
	return &api.Empty{}, nil
}

// startKubelet empties dir, as a kubelet does when it starts, and listens there. The returned function stops it.
func startKubelet(t *testing.T, dir string) (*kubelet, func()) {
	t.Helper()
	entries, _ := filepath.Glob(filepath.Join(dir, "*.sock"))
	for _, entry := range entries {
		os.Remove(entry)
	}
	listener, err := net.Listen("unix", filepath.Join(dir, "kubelet.sock"))
	if err != nil {
		t.Fatal(err)
	}
	k := &kubelet{registered: make(chan *api.RegisterRequest, 4)}
	server := grpc.NewServer()
	api.RegisterRegistrationServer(server, k)
	go server.Serve(listener)
	return k, server.Stop
}

func awaitRegistration(t *testing.T, k *kubelet) *api.RegisterRequest {
	t.Helper()
	select {
	case request := <-k.registered:
		return request
	case <-time.After(30 * time.Second):
		t.Fatal("the plugin did not register")
		return nil
	}
}

func startPlugin(t *testing.T) *Plugin {
	t.Helper()
	dir := t.TempDir()
	p := &Plugin{
		Resource:      "nvidia.com/gpu",
		Devices:       []string{"GPU-0", "GPU-1"},
		Dir:           dir,
		UnhealthyFile: filepath.Join(dir, "unhealthy"),
		Interval:      20 * time.Millisecond,
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { p.Run(ctx); close(ended) }()
	t.Cleanup(func() { cancel(); <-ended })
	return p
}

func client(t *testing.T, p *Plugin, endpoint string) api.DevicePluginClient {
	t.Helper()
	connection, err := grpc.NewClient("unix://"+filepath.Join(p.Dir, endpoint),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	return api.NewDevicePluginClient(connection)
}

func healthOf(t *testing.T, stream grpc.ServerStreamingClient[api.ListAndWatchResponse]) map[string]string {
	t.Helper()
	response, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	health := map[string]string{}
	for _, device := range response.Devices {
		health[device.ID] = device.Health
	}
	return health
}

func TestDevicesNamedInTheFileAreReportedUnhealthy(t *testing.T) {
	p := startPlugin(t)
	k, stop := startKubelet(t, p.Dir)
	defer stop()
	request := awaitRegistration(t, k)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stream, err := client(t, p, request.Endpoint).ListAndWatch(ctx, &api.Empty{})
	if err != nil {
		t.Fatal(err)
	}

	before := healthOf(t, stream)
	os.WriteFile(p.UnhealthyFile, []byte("GPU-1\n"), 0o600)
	during := healthOf(t, stream)
	os.Remove(p.UnhealthyFile)
	after := healthOf(t, stream)

	for name, got := range map[string]map[string]string{"before": before, "after": after} {
		if got["GPU-0"] != api.Healthy || got["GPU-1"] != api.Healthy {
			t.Errorf("%s: want both devices healthy, got %v", name, got)
		}
	}
	if during["GPU-0"] != api.Healthy || during["GPU-1"] != api.Unhealthy {
		t.Errorf("want only GPU-1 unhealthy, got %v", during)
	}
}

func TestAKubeletThatRestartsIsRegisteredWithAgain(t *testing.T) {
	p := startPlugin(t)
	first, stop := startKubelet(t, p.Dir)
	awaitRegistration(t, first)

	stop()
	second, stopSecond := startKubelet(t, p.Dir)
	defer stopSecond()

	if got := awaitRegistration(t, second).ResourceName; got != p.Resource {
		t.Errorf("want %q registered, got %q", p.Resource, got)
	}
}

func TestAContainerSeesTheDevicesItWasGiven(t *testing.T) {
	p := &Plugin{Devices: []string{"GPU-0", "GPU-1"}}
	request := &api.AllocateRequest{ContainerRequests: []*api.ContainerAllocateRequest{
		{DevicesIds: []string{"GPU-1", "GPU-0"}}, {DevicesIds: []string{"GPU-1"}},
	}}

	response, err := p.Allocate(context.Background(), request)

	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"GPU-0,GPU-1", "GPU-1"} {
		if got := response.ContainerResponses[i].Envs[visibleDevices]; got != want {
			t.Errorf("container %d: want %q, got %q", i, want, got)
		}
	}
}

func TestADeviceThatDoesNotExistIsNotAllocated(t *testing.T) {
	p := &Plugin{Devices: []string{"GPU-0"}}
	request := &api.AllocateRequest{ContainerRequests: []*api.ContainerAllocateRequest{{DevicesIds: []string{"GPU-7"}}}}

	if _, err := p.Allocate(context.Background(), request); err == nil {
		t.Error("want an error that names GPU-7, got none")
	}
}
