//! askbench: lines made from a pattern, on many connections, each answer checked; or, with
//! --fresh, a connection for each line.
//!
//! A connection has up to `--pipeline` lines in flight and asks again after each answer. An
//! answer that does not verify ends the run. With --timers, a second part waits until each
//! timer has fired, and refuses a timer that fires twice. One thread, one epoll.

use linebench::figures::{ns, print_json, times, us};
use linebench::{Res, net, proc};
use mio::{Events, Interest, Poll, Token, net::TcpStream};
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const HELP: &str = "\
askbench [OPTIONS] HOST:PORT      lines made from a pattern, each answer checked

      --line TEXT    what is asked: {c} is the connection's number, {n} counts its lines
      --answer TEXT  what must be answered (as --line)
      --modulo N     {n} begins anew after so many
  -c, --conns N      connections (50)
  -p, --pipeline N   lines in flight on each (1)
  -t, --time SECS    length of the measurement (3)
  -w, --warmup SECS  not measured (0.3)
  -n, --each N       so many lines on each connection instead, all measured
      --fresh        each line on a connection of its own, closed behind its answer
      --timers SECS  then wait for a line `t{n}` for each of them, due after so many seconds
      --hold         then stay connected until standard input ends
      --pid PID      a process of the server: also report its CPU per answer
";

/// Options, as the help describes them.
struct Opts {
    addr: SocketAddr,
    line: String,
    answer: String,
    modulo: u64,
    conns: usize,
    pipeline: u64,
    time: f64,
    warmup: f64,
    each: Option<u64>,
    fresh: bool,
    timers: Option<f64>,
    hold: bool,
    pids: Vec<u32>,
}

/// Connection with its lines in flight.
struct Conn {
    sock: TcpStream,
    /// Lines made, sent or not.
    asked: u64,
    /// Answers that came and were right.
    answered: u64,
    unsent: Vec<u8>,
    /// Bytes of a line whose end has not come.
    got: Vec<u8>,
    /// Time at which the last line was made. With several in flight, latencies count from the
    /// latest.
    since: Instant,
}

/// Reads the options; `None`: the help was asked for.
fn parse_args() -> Res<Option<Opts>> {
    use lexopt::prelude::*;
    let mut o = Opts {
        addr: ([127, 0, 0, 1], 0).into(),
        line: "hello {n}".into(),
        answer: String::new(),
        modulo: u64::MAX,
        conns: 50,
        pipeline: 1,
        time: 3.0,
        warmup: 0.3,
        each: None,
        fresh: false,
        timers: None,
        hold: false,
        pids: Vec::new(),
    };
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Long("line") => o.line = args.value()?.string()?,
            Long("answer") => o.answer = args.value()?.string()?,
            Long("modulo") => o.modulo = args.value()?.parse()?,
            Short('c') | Long("conns") => o.conns = args.value()?.parse()?,
            Short('p') | Long("pipeline") => o.pipeline = args.value()?.parse()?,
            Short('t') | Long("time") => o.time = args.value()?.parse()?,
            Short('w') | Long("warmup") => o.warmup = args.value()?.parse()?,
            Short('n') | Long("each") => o.each = Some(args.value()?.parse()?),
            Long("fresh") => o.fresh = true,
            Long("timers") => o.timers = Some(args.value()?.parse()?),
            Long("hold") => o.hold = true,
            Long("pid") => o.pids.push(args.value()?.parse()?),
            Short('h') | Long("help") => {
                print!("{HELP}");
                return Ok(None);
            }
            Value(v) => o.addr = v.string()?.parse()?,
            _ => return Err(arg.unexpected().into()),
        }
    }
    if o.answer.is_empty() {
        o.answer = o.line.clone();
    }
    Ok(Some(o))
}

fn main() -> Res<()> {
    match parse_args()? {
        Some(opts) => opts.run(),
        None => Ok(()),
    }
}

impl Opts {
    /// Line or answer number `n` of a connection, made from a pattern.
    fn text(&self, pattern: &str, conn: usize, n: u64) -> String {
        let n = (n % self.modulo).to_string();
        pattern.replace("{c}", &conn.to_string()).replace("{n}", &n) + "\n"
    }

    /// Begins to connect.
    fn connect(&self, poll: &Poll, at: usize) -> Res<Conn> {
        // With --fresh each line takes a port, which stays in TIME_WAIT: from many addresses.
        let from = if self.fresh { source(at) } else { at / 10_000 };
        let mut sock = net::begin_connect(self.addr, from)?;
        poll.registry().register(&mut sock, Token(at), Interest::READABLE | Interest::WRITABLE)?;
        let now = Instant::now();
        Ok(Conn { sock, asked: 0, answered: 0, unsent: Vec::new(), got: Vec::new(), since: now })
    }

    /// Lines that a connection may send.
    fn most(&self) -> u64 {
        if self.fresh { 1 } else { self.each.unwrap_or(u64::MAX) }
    }

    /// Asks as much as may be in flight.
    fn ask(&self, c: &mut Conn, at: usize, ending: bool) -> Res<()> {
        while !ending && c.asked < self.most() && c.asked - c.answered < self.pipeline {
            c.unsent.extend(self.text(&self.line, at, c.asked).bytes());
            c.asked += 1;
            c.since = Instant::now();
        }
        while !c.unsent.is_empty() {
            match c.sock.write(&c.unsent) {
                Ok(n) => _ = c.unsent.drain(..n),
                Err(e) if [ErrorKind::WouldBlock, ErrorKind::NotConnected].contains(&e.kind()) => break,
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// Reads all bytes that have come, and hands on each whole line with its end.
    fn lines(
        &self,
        c: &mut Conn,
        buf: &mut [u8],
        mut each: impl FnMut(&mut Conn, &str) -> Res<()>,
    ) -> Res<()> {
        loop {
            match c.sock.read(buf) {
                Ok(0) => return Err("the server closed a connection".into()),
                Ok(n) => c.got.extend(&buf[..n]),
                Err(e) if [ErrorKind::WouldBlock, ErrorKind::NotConnected].contains(&e.kind()) => break,
                Err(e) => return Err(e.into()),
            }
        }
        let got = std::mem::take(&mut c.got);
        let whole = got.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        for line in got[..whole].split_inclusive(|b| *b == b'\n') {
            each(c, std::str::from_utf8(line)?)?;
        }
        c.got = got[whole..].to_vec();
        Ok(())
    }

    /// Runs the measurement and prints the figures. Fails if answers are missing a minute after
    /// its end.
    fn run(&self) -> Res<()> {
        let mut poll = Poll::new()?;
        let mut events = Events::with_capacity(1024);
        let mut buf = vec![0u8; 256 * 1024];
        let mut all = (0..self.conns).map(|at| self.connect(&poll, at)).collect::<Res<Vec<_>>>()?;
        let (mut answers, mut latencies, mut opened) = (0u64, times(), self.conns);
        let begun = Instant::now();
        let warmup = if self.each.is_some() { 0.0 } else { self.warmup };
        let mut measured: Option<(Instant, proc::Snapshot)> = None;
        let usage = loop {
            let (mut ending, now) = (false, Instant::now());
            match &measured {
                None if (now - begun).as_secs_f64() >= warmup => {
                    measured = Some((now, proc::Snapshot::take(&self.pids)));
                }
                Some((since, _)) => ending = self.each.is_none() && (now - *since).as_secs_f64() > self.time,
                None => {}
            }
            let done =
                |c: &Conn| c.asked == c.answered && (ending || (!self.fresh && c.asked == self.most()));
            if let Some((since, before)) = &measured
                && (ending && self.fresh || all.iter().all(done))
            {
                break (since.elapsed().as_secs_f64(), proc::Snapshot::take(&self.pids).since(before));
            }
            if begun.elapsed() > Duration::from_secs_f64(self.time + warmup + 60.0) {
                return Err("answers did not come".into());
            }
            if let Err(e) = poll.poll(&mut events, Some(Duration::from_millis(10))) {
                if e.kind() == ErrorKind::Interrupted {
                    continue;
                }
                return Err(e.into());
            }
            for event in &events {
                let at = event.token().0;
                let c = &mut all[at];
                self.lines(c, &mut buf, |c, line| {
                    if line != self.text(&self.answer, at, c.answered) {
                        return Err(format!("an answer does not verify: {line:?}").into());
                    }
                    c.answered += 1;
                    if measured.is_some() {
                        answers += 1;
                        latencies.record(ns(c.since.elapsed()))?;
                    }
                    Ok(())
                })?;
                if self.fresh && c.answered == 1 {
                    poll.registry().deregister(&mut c.sock)?;
                    opened += 1;
                    all[at] = self.connect(&poll, at)?;
                }
                self.ask(&mut all[at], at, ending)?;
            }
            for (at, c) in all.iter_mut().enumerate().filter(|(_, c)| c.asked == 0 && !self.fresh) {
                self.ask(c, at, ending)?;
            }
        };
        let (elapsed, cpu) = usage;
        let mut figures = vec![
            ("answers", answers as f64),
            ("answers_per_s", answers as f64 / elapsed),
            ("connections", opened as f64),
            ("p50_us", us(&latencies, 0.5)),
            ("p99_us", us(&latencies, 0.99)),
            ("server_ns_per_answer", cpu.server_s * 1e9 / answers as f64),
        ];
        if let Some(after) = self.timers {
            figures.extend(self.wait_for_timers(&mut poll, &mut all, begun, after)?);
        }
        print_json(&figures);
        if self.hold {
            std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
        }
        Ok(())
    }

    /// Waits until every timer has fired once. Timers were set for `after` seconds, when the run
    /// began or a little later.
    fn wait_for_timers(
        &self,
        poll: &mut Poll,
        all: &mut [Conn],
        begun: Instant,
        after: f64,
    ) -> Res<Vec<(&'static str, f64)>> {
        let mut events = Events::with_capacity(1024);
        let mut buf = vec![0u8; 256 * 1024];
        let wanted: u64 = all.iter().map(|c| c.asked).sum();
        let mut seen = vec![vec![false; self.most() as usize]; all.len()];
        let (mut fired, mut first) = (0u64, None);
        let mut take = |all: &mut [Conn], at: usize, buf: &mut [u8]| -> Res<u64> {
            let mut new = 0;
            self.lines(&mut all[at], buf, |_, line| {
                let n: usize = line.trim_end().strip_prefix('t').ok_or("no timer")?.parse()?;
                if std::mem::replace(&mut seen[at][n], true) {
                    return Err(format!("timer {n} fired twice").into());
                }
                new += 1;
                Ok(())
            })?;
            Ok(new)
        };
        while fired < wanted {
            if begun.elapsed() > Duration::from_secs_f64(after + 60.0) {
                return Err(format!("{fired} of {wanted} timers fired").into());
            }
            let _ = poll.poll(&mut events, Some(Duration::from_millis(10)));
            for event in &events {
                fired += take(all, event.token().0, &mut buf)?;
            }
            if fired > 0 {
                first.get_or_insert_with(Instant::now);
            }
        }
        let took = first.map_or(0.0, |at| at.elapsed().as_secs_f64());
        Ok(vec![("timers", fired as f64), ("timers_per_s", fired as f64 / took)])
    }
}

/// Number of a source address for the next connection, in turn.
fn source(at: usize) -> usize {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    (NEXT.fetch_add(1, Ordering::Relaxed) + at) % 200
}
