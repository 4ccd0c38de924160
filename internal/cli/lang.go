package cli

import (
	"fmt"
	"math"
	"time"

	"singlegate/gateway"
	"singlegate/internal/livecheck"
)

// words are what a command says in one language. What the gateway reports of
// causes and reasons stays as it is. Where one says that something is formatted,
// its verbs are those of the English one, in that order.
type words struct {
	// The table of nodes.
	columns                  [8]string
	health                   map[gateway.Health]string // ejected: formatted
	gone                     string                    // the health of a node that is not there any more
	draining, begins         string                    // formatted
	closing, drained         string
	lingering                string // formatted: clients that have not answered a Close
	leftOut, ports, troubles string // headings
	fault, unknown, empty    string // formatted
	noServices               string
	updated                  string // formatted
	units                    [4]string

	// Errors.
	unreachable, noSinglegate, notAddress, noAdmin string // formatted
	noService, noNode, severalNodes                string // formatted
	didYouMean, known, andMore                     string // formatted
	listSeparator                                  string

	// Draining.
	drainBegun, drainEmpty, drainDone, drainGone string // formatted
	progress, progressLast                       string // formatted
	drainEnded, drainStuck, waitCut              string // formatted
	undrained, notDraining                       string // formatted
}

// speak chooses the language as POSIX does: the first of the three variables
// that is set counts. Chinese is spoken where it begins with zh, English elsewhere.
func speak(getenv func(string) string) words {
	if livecheck.IsChinese(getenv) {
		return chinese()
	}
	return english()
}

func english() words {
	return words{
		columns: [8]string{"SERVICE", "NODE", "ADDRESS", "SOURCE", "HEALTH", "TUNNELS", "DRAIN", "SNAPSHOT"},
		health: map[gateway.Health]string{
			gateway.HealthPassing:     "passing",
			gateway.HealthFailing:     "failing",
			gateway.HealthMaintenance: "maintenance",
			gateway.HealthEjected:     "ejected %s",
			gateway.HealthDraining:    "draining",
		},
		gone:       "gone",
		draining:   "draining %d/%d, %s left",
		begins:     "begins in %s",
		closing:    "closing all",
		drained:    "drained",
		lingering:  "%d lingering",
		leftOut:    "Instances left out:",
		ports:      "Ports not open:",
		troubles:   "Services in trouble:",
		fault:      "%s, last good snapshot %s old",
		unknown:    "nothing is known of its nodes yet",
		empty:      "it has no nodes",
		noServices: "The gateway has no services.",
		updated:    "%s, %d tunnels; Ctrl-C ends",
		units:      [4]string{"s", "m", "h", "d"},

		unreachable: `no answer from the admin address %s: %v
  - Is the gateway running, on this machine? The admin address is for its own machine only.
  - Is this its admin address? It is what "admin: {address: …}" in its config says;
    give it with --admin HOST:PORT, or the config with --config FILE.
  - With containers: run this command inside the gateway's.`,
		noSinglegate: "%s answered %s: is it the admin address of a singlegate, of this version?",
		notAddress:   "--admin %q is not HOST:PORT",
		noAdmin:      `%s has no admin address; add admin: {address: "127.0.0.1:9180"}`,

		noService:     "there is no service %q",
		noNode:        "there is no node %q",
		severalNodes:  "several services have a node %q: %s; name one with --service",
		didYouMean:    "; did you mean %s?",
		known:         "; there are: %s",
		andMore:       " and %d more",
		listSeparator: ", ",

		drainBegun: `%s gets no new tunnels; those it has are being closed: %s
  how far it is:  singlegate nodes --watch
  take it back:   singlegate undrain %s`,
		drainEmpty:   "%s gets no new tunnels, and has none",
		drainDone:    "%s: no tunnel is left (%d closed, in %s)",
		drainGone:    "%s: the node is gone, and no drain of it is under way",
		progress:     "%d of %d closed, %s left",
		progressLast: "%d of %d closed, waiting for the last",
		drainEnded:   "%s: somebody has ended the drain; it has %d tunnels",
		drainStuck:   "%s: %d tunnels are left, and nothing has changed for %s; the gateway goes on trying",
		waitCut:      "the drain goes on without this command; singlegate nodes --watch tells how far it is",
		undrained:    "%s gets new tunnels again",
		notDraining:  "%s was not being drained: nothing to do",
	}
}

func chinese() words {
	return words{
		columns: [8]string{"服务", "节点", "地址", "来源", "健康", "隧道", "排空", "快照"},
		health: map[gateway.Health]string{
			gateway.HealthPassing:     "正常",
			gateway.HealthFailing:     "检查未通过",
			gateway.HealthMaintenance: "维护中",
			gateway.HealthEjected:     "已剔除 %s",
			gateway.HealthDraining:    "排空中",
		},
		gone:       "已注销",
		draining:   "已排空 %d/%d，剩余 %s",
		begins:     "%s后开始",
		closing:    "全部关闭中",
		drained:    "已排空",
		lingering:  "%d 条等待客户端断开",
		leftOut:    "被排除的实例：",
		ports:      "未能打开的端口：",
		troubles:   "有问题的服务：",
		fault:      "%s，最近一次有效快照在 %s前",
		unknown:    "尚未获知任何节点",
		empty:      "没有节点",
		noServices: "网关没有任何服务。",
		updated:    "%s，共 %d 条隧道；按 Ctrl-C 结束",
		units:      [4]string{" 秒", " 分钟", " 小时", " 天"},

		unreachable: `管理地址 %s 没有应答：%v
  - 网关是否正在本机运行?管理地址只供网关所在的机器使用。
  - 这是它的管理地址吗？配置中的 "admin: {address: …}" 就是该地址；
    用 --admin HOST:PORT 指定地址，或用 --config FILE 指定配置文件。
  - 使用容器时：请在网关的容器内运行本命令。`,
		noSinglegate: "%s 的应答是 %s：它是同一版本 singlegate 的管理地址吗？",
		notAddress:   "--admin %q 不是 HOST:PORT 形式",
		noAdmin:      `%s 中没有管理地址；请加上 admin: {address: "127.0.0.1:9180"}`,

		noService:     "没有名为 %q 的服务",
		noNode:        "没有名为 %q 的节点",
		severalNodes:  "多个服务都有节点 %q：%s；请用 --service 指定其一",
		didYouMean:    "；是不是 %s？",
		known:         "；现有：%s",
		andMore:       " 等另外 %d 个",
		listSeparator: "、",

		drainBegun: `%s 不再接受新隧道；现有隧道正在关闭：%s
  查看进度：  singlegate nodes --watch
  撤销排空：  singlegate undrain %s`,
		drainEmpty:   "%s 不再接受新隧道，目前也没有隧道",
		drainDone:    "%s：隧道已全部关闭（%d 条，用时 %s）",
		drainGone:    "%s：节点已注销，也没有正在进行的排空",
		progress:     "已关闭 %d/%d，剩余 %s",
		progressLast: "已关闭 %d/%d，等待最后的隧道",
		drainEnded:   "%s：排空已被撤销；现有 %d 条隧道",
		drainStuck:   "%s：还有 %d 条隧道，已有 %s没有变化；网关仍在继续",
		waitCut:      "本命令结束后排空仍会继续；用 singlegate nodes --watch 查看进度",
		undrained:    "%s 重新接受新隧道",
		notDraining:  "%s 没有在排空：无需撤销",
	}
}

// span is a duration in one unit, rounded up; days are rounded down.
func (w *words) span(d time.Duration) string {
	d = max(d, 0)
	for i, unit := range []time.Duration{time.Second, time.Minute, time.Hour} {
		if next := unit * []time.Duration{60, 60, 24}[i]; d < 2*next {
			return fmt.Sprintf("%d%s", int(math.Ceil(float64(d)/float64(unit))), w.units[i])
		}
	}
	return fmt.Sprintf("%d%s", int(d/(24*time.Hour)), w.units[3])
}
