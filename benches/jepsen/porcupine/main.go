// Checks histories with Porcupine: porcupine KIND FILE... Prints milliseconds for the checks
// alone, those of the worst file, the verdicts and the largest resident size in MiB.
package main

import (
	"bufio"
	"fmt"
	"os"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

type input struct {
	f        string
	key      string
	value    string
	from, to string
}

type output struct {
	known bool
	ok    bool
	value string
}

var register = porcupine.Model{
	Init: func() interface{} { return "nil" },
	Step: func(state, in, out interface{}) (bool, interface{}) {
		st, i, o := state.(string), in.(input), out.(output)
		switch i.f {
		case "read":
			return !o.known || o.value == st, st
		case "write":
			return true, i.value
		}
		hit := st == i.from
		next := st
		if hit {
			next = i.to
		}
		return !o.known || o.ok == hit, next
	},
}

var queue = porcupine.Model{
	Init: func() interface{} { return "" },
	Step: func(state, in, out interface{}) (bool, interface{}) {
		st, i, o := state.(string), in.(input), out.(output)
		if i.f == "enqueue" {
			return true, st + i.value + " "
		}
		if o.value == "nil" {
			return st == "", st
		}
		return strings.HasPrefix(st, o.value+" "), strings.TrimPrefix(st, o.value+" ")
	},
}

func byKey(history []porcupine.Event) [][]porcupine.Event {
	keys := map[int]string{}
	parts := map[string][]porcupine.Event{}
	for _, e := range history {
		if e.Kind == porcupine.CallEvent {
			keys[e.Id] = e.Value.(input).key
		}
		parts[keys[e.Id]] = append(parts[keys[e.Id]], e)
	}
	var out [][]porcupine.Event
	for _, part := range parts {
		out = append(out, part)
	}
	return out
}

var set = porcupine.Model{
	PartitionEvent: byKey,
	Init:           func() interface{} { return false },
	Step: func(state, in, out interface{}) (bool, interface{}) {
		switch in.(input).f {
		case "add":
			return true, true
		case "remove":
			return true, false
		}
		return (out.(output).value == "true") == state.(bool), state
	},
}

var kv = porcupine.Model{
	PartitionEvent: byKey,
	Init:           func() interface{} { return "" },
	Step: func(state, in, out interface{}) (bool, interface{}) {
		st, i := state.(string), in.(input)
		switch i.f {
		case "get":
			return out.(output).value == st, st
		case "put":
			return true, i.value
		}
		return true, st + i.value
	},
}

var line = regexp.MustCompile(`jepsen\.util - (\d+)\s+:(\w+)\s+:(\w+)\s+(.*)$`)
var kvLine = regexp.MustCompile(`:process (\d+), :type :(\w+), :f :(\w+), :key "(.*?)", :value (nil|".*")}`)

func parse(file string, kind string) []porcupine.Event {
	f, err := os.Open(file)
	if err != nil {
		panic(err)
	}
	defer f.Close()
	scanner := bufio.NewScanner(f)
	scanner.Buffer(make([]byte, 1<<20), 1<<28)
	var events []porcupine.Event
	open := map[int]int{}
	left := map[int]bool{}
	id := 0
	for scanner.Scan() {
		var process int
		var what, fn, rest, key string
		if kind == "kv" {
			m := kvLine.FindStringSubmatch(scanner.Text())
			if m == nil {
				continue
			}
			process, _ = strconv.Atoi(m[1])
			what, fn, key, rest = m[2], m[3], m[4], strings.Trim(m[5], `"`)
		} else {
			m := line.FindStringSubmatch(scanner.Text())
			if m == nil {
				continue
			}
			process, _ = strconv.Atoi(m[1])
			what, fn, rest = m[2], m[3], strings.TrimSpace(m[4])
		}
		pair := strings.Fields(strings.Trim(rest, "[]"))
		if what == "invoke" {
			in := input{f: fn, key: key, value: rest}
			if fn == "cas" {
				in.from, in.to = pair[0], pair[1]
			}
			if kind == "set" {
				in.key = pair[0]
			}
			events = append(events, porcupine.Event{ClientId: process, Kind: porcupine.CallEvent, Value: in, Id: id})
			open[process] = id
			left[id] = true
			id++
			continue
		}
		if what == "info" {
			continue
		}
		out := output{known: !strings.HasPrefix(rest, ":"), ok: what == "ok", value: rest}
		if kind == "set" && len(pair) == 2 {
			out.value = pair[1]
		}
		events = append(events, porcupine.Event{ClientId: process, Kind: porcupine.ReturnEvent, Value: out, Id: open[process]})
		delete(left, open[process])
	}
	var rest []int
	for n := range left {
		rest = append(rest, n)
	}
	sort.Ints(rest)
	for _, n := range rest {
		events = append(events, porcupine.Event{Kind: porcupine.ReturnEvent, Value: output{}, Id: n})
	}
	return events
}

func main() {
	models := map[string]porcupine.Model{"cas-register": register, "queue": queue, "linear-set": set, "kv": kv}
	kind := strings.Fields(os.Args[1])[0]
	short := strings.TrimPrefix(kind, "linear-")
	var sum, worst time.Duration
	count := map[string]int{}
	var last string
	for _, file := range os.Args[2:] {
		events := parse(file, short)
		begin := time.Now()
		result := porcupine.CheckEventsTimeout(models[kind], events, 60*time.Second)
		took := time.Since(begin)
		sum += took
		if took > worst {
			worst = took
		}
		last = map[porcupine.CheckResult]string{porcupine.Ok: "valid", porcupine.Illegal: "invalid", porcupine.Unknown: "unknown"}[result]
		count[last]++
	}
	if len(os.Args) > 3 {
		last = fmt.Sprintf("%d valid, %d invalid, %d unknown", count["valid"], count["invalid"], count["unknown"])
	}
	status, _ := os.ReadFile("/proc/self/status")
	hwm := regexp.MustCompile(`VmHWM:\s+(\d+)`).FindSubmatch(status)
	kib, _ := strconv.Atoi(string(hwm[1]))
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	fmt.Printf("%.3f\t%.3f\t%s\t%d\n", ms(sum), ms(worst), last, kib/1024)
}
