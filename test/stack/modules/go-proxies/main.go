// Command go-proxies answers which proxy Go programs use for a URL, with the package that they all use.
//
// Each line on standard input is a question {"http", "https", "no": values of the variables, "urls": […]}, each on
// standard output its answer: for each URL the proxy, "" for none.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/url"
	"os"

	"golang.org/x/net/http/httpproxy"
)

type question struct {
	HTTP  string   `json:"http"`
	HTTPS string   `json:"https"`
	No    string   `json:"no"`
	URLs  []string `json:"urls"`
}

func answer(q question) ([]string, error) {
	choose := (&httpproxy.Config{HTTPProxy: q.HTTP, HTTPSProxy: q.HTTPS, NoProxy: q.No}).ProxyFunc()
	proxies := make([]string, 0, len(q.URLs))
	for _, text := range q.URLs {
		u, err := url.Parse(text)
		if err != nil {
			return nil, err
		}
		proxy, err := choose(u)
		if err != nil {
			return nil, err
		}
		if proxy == nil {
			proxies = append(proxies, "")
		} else {
			proxies = append(proxies, proxy.String())
		}
	}
	return proxies, nil
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var q question
		err := json.Unmarshal(lines.Bytes(), &q)
		var proxies []string
		if err == nil {
			proxies, err = answer(q)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		text, _ := json.Marshal(proxies)
		fmt.Println(string(text))
	}
}
