// Command gpu-device-plugin gives a node GPUs that do not exist, through the kubelet's real device plugin protocol.
//
// Write the name of a device into FILE (see --unhealthy-file) and it is reported Unhealthy until the name is taken
// out again.
package main

import (
	"context"
	"flag"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"agentoperator.dev/local-cluster/internal/deviceplugin"
	"k8s.io/klog/v2"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

func main() {
	resource := flag.String("resource", "nvidia.com/gpu", "name of the resource that pods ask for")
	devices := flag.String("devices", "GPU-0,GPU-1", "names of the devices, separated by commas")
	dir := flag.String("plugin-dir", api.DevicePluginPath, "the kubelet's device plugin folder")
	unhealthy := flag.String("unhealthy-file", "", "file that names the devices to report Unhealthy, one on a line")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	plugin := &deviceplugin.Plugin{
		Resource:      *resource,
		Devices:       strings.Split(*devices, ","),
		Dir:           *dir,
		UnhealthyFile: *unhealthy,
		Interval:      500 * time.Millisecond,
	}
	if err := plugin.Run(ctx); err != nil && ctx.Err() == nil {
		klog.ErrorS(err, "The device plugin ended")
	}
}
