package main

import (
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
)

func main() {
	version := os.Getenv("VERSION")
	if version == "" {
		version = "1"
	}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprintf(w, "go %s %s\n", version, host)
	})
	log.Fatal(http.ListenAndServe(":"+os.Getenv("PORT"), nil))
}
