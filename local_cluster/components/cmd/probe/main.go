// Command probe is the body of the pods with which the embedded cluster is checked: it fits an image of one file.
//
//	probe serve :8080       answers every HTTP request with the pod's GPU devices and its host name
//	probe get URL           prints the answer of URL
//	probe lookup NAME       prints the addresses of NAME
//	probe cat FILE          prints FILE
//	probe env NAME          prints the environment variable NAME
//	probe wait              waits until it is told to end
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 1 && args[0] == "wait" {
		awaitTermination()
		return nil
	}
	if len(args) != 2 {
		return fmt.Errorf("want a command and one argument, got %q", args)
	}
	switch command, argument := args[0], args[1]; command {
	case "serve":
		return serve(argument)
	case "get":
		return get(argument)
	case "lookup":
		addresses, err := net.LookupHost(argument)
		fmt.Println(addresses)
		return err
	case "cat":
		content, err := os.ReadFile(argument)
		os.Stdout.Write(content)
		return err
	case "env":
		fmt.Println(os.Getenv(argument))
		return nil
	default:
		return fmt.Errorf("unknown command %q", command)
	}
}

// serve answers HTTP on address until the process is told to end.
func serve(address string) error {
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	answer := func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "%s gpus=%q\n", host, os.Getenv("NVIDIA_VISIBLE_DEVICES"))
	}
	go func() {
		awaitTermination()
		os.Exit(0)
	}()
	return http.ListenAndServe(address, http.HandlerFunc(answer))
}

// get prints the body of url, and fails on any status but 200.
func get(url string) error {
	client := http.Client{Timeout: 10 * time.Second}
	response, err := client.Get(url)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, response.Status)
	}
	_, err = io.Copy(os.Stdout, response.Body)
	return err
}

func awaitTermination() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	<-signals
}
