//! fanbench: one line to many connections.
//!
//! A connection says a batch of lines. Every connection must get every line, checked byte for
//! byte, before the next batch. A delivery is a line that reached a connection. One thread, one
//! epoll.
//!
//! The end of a run looks once more at every connection: a line that came twice would be there.

use linebench::figures::{ns, print_json, times, us};
use linebench::{Res, net, proc};
use mio::{Events, Interest, Poll, Token, net::TcpStream};
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const HELP: &str = "\
fanbench [OPTIONS] HOST:PORT      one line to many connections

  -c, --conns N      connections, the sender among them (1000)
  -p, --pipeline N   lines in a batch (1)
  -s, --size BYTES   length of a line with its newline (32, at least 10)
  -t, --time SECS    length of the measurement (3)
  -w, --warmup SECS  not measured (0.5)
      --topic NAME   the service `bench`: join the topic, and say the lines there; else the server
                     sends what it gets to all
      --pid PID      a process of the server: also report its CPU per delivery
";

/// Options, as the help describes them.
struct Opts {
    pipeline: usize,
    size: usize,
    time: f64,
    warmup: f64,
    pids: Vec<u32>,
}

/// Connection that gets every line.
struct Conn {
    sock: TcpStream,
    /// Bytes of the batch that have come.
    got: usize,
}

fn main() -> Res<()> {
    use lexopt::prelude::*;
    let mut o = Opts { pipeline: 1, size: 32, time: 3.0, warmup: 0.5, pids: Vec::new() };
    let (mut conns, mut topic, mut addr) = (1000usize, None, None);
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Short('c') | Long("conns") => conns = args.value()?.parse()?,
            Short('p') | Long("pipeline") => o.pipeline = args.value()?.parse()?,
            Short('s') | Long("size") => o.size = args.value()?.parse()?,
            Short('t') | Long("time") => o.time = args.value()?.parse()?,
            Short('w') | Long("warmup") => o.warmup = args.value()?.parse()?,
            Long("topic") => topic = Some(args.value()?.string()?),
            Long("pid") => o.pids.push(args.value()?.parse()?),
            Short('h') | Long("help") => {
                print!("{HELP}");
                return Ok(());
            }
            Value(v) if addr.is_none() => addr = Some(v.string()?.parse::<SocketAddr>()?),
            _ => return Err(arg.unexpected().into()),
        }
    }
    let addr = addr.ok_or("HOST:PORT is missing (--help)")?;
    if o.size < 10 || conns == 0 || o.pipeline == 0 {
        return Err("need --size >= 10, --conns >= 1, --pipeline >= 1".into());
    }

    let streams = (0..conns).map(|n| net::connect(addr, n / 10_000)).collect::<Result<Vec<_>, _>>()?;
    match &topic {
        Some(topic) => {
            let join = format!("join {topic}");
            for stream in &streams {
                if net::ask(stream, &format!("{join}\n"))? != [&*join] {
                    return Err("a connection can't join".into());
                }
            }
        }
        // All are accepted once all get what the last one says.
        None => {
            (&streams[conns - 1]).write_all(b"hello\n")?;
            for stream in &streams {
                let mut got = [0; 6];
                (&*stream).read_exact(&mut got)?;
                if got != *b"hello\n" {
                    return Err("the hello does not verify".into());
                }
            }
        }
    }
    let mut poll = Poll::new()?;
    let mut all = Vec::with_capacity(conns);
    for (n, stream) in streams.into_iter().enumerate() {
        stream.set_nonblocking(true)?;
        let mut sock = TcpStream::from_std(stream);
        poll.registry().register(&mut sock, Token(n), Interest::READABLE | Interest::WRITABLE)?;
        all.push(Conn { sock, got: 0 });
    }
    o.run(&mut poll, &mut all, &topic.map_or(String::new(), |topic| format!("say {topic} ")))
}

/// A line of `size` bytes that carries its number.
fn line(number: u32, size: usize) -> Vec<u8> {
    let mut line = format!("{number:08x}:").into_bytes();
    line.extend((line.len()..size - 1).map(|i| b'a' + (i % 26) as u8));
    line.push(b'\n');
    line
}

impl Opts {
    /// Sends batches until the time is over, then prints the figures. A batch that takes 30 s
    /// ends the run.
    fn run(&self, poll: &mut Poll, all: &mut [Conn], say: &str) -> Res<()> {
        let mut events = Events::with_capacity(1024);
        let mut buf = vec![0u8; 256 * 1024];
        let mut number = 0;
        let mut batch = |request: &mut Vec<u8>, expected: &mut Vec<u8>| {
            request.clear();
            expected.clear();
            for _ in 0..self.pipeline {
                number += 1;
                let line = line(number, self.size);
                request.extend([say.as_bytes(), &line].concat());
                expected.extend(line);
            }
        };
        let (mut request, mut expected) = (Vec::new(), Vec::new());
        let (mut latencies, mut batches) = (times(), 0u64);
        let begun = Instant::now();
        // Begin of the measurement, and the CPU time used up to then.
        let mut measured: Option<(Instant, proc::Snapshot)> = None;
        loop {
            let now = Instant::now();
            if let Some((since, before)) = &measured {
                let elapsed = (now - *since).as_secs_f64();
                if elapsed > self.time {
                    let usage = proc::Snapshot::take(&self.pids).since(before);
                    std::thread::sleep(Duration::from_millis(20));
                    for c in all.iter_mut() {
                        if !matches!(c.sock.read(&mut buf), Err(e) if e.kind() == ErrorKind::WouldBlock) {
                            return Err("more came than was said, or an end".into());
                        }
                    }
                    let deliveries = (batches * (self.pipeline * all.len()) as u64) as f64;
                    print_json(&[
                        ("deliveries", deliveries),
                        ("deliveries_per_s", deliveries / elapsed),
                        ("bytes_per_s", deliveries * self.size as f64 / elapsed),
                        ("p50_us", us(&latencies, 0.5)),
                        ("p99_us", us(&latencies, 0.99)),
                        ("client_busy", usage.self_s / elapsed),
                        ("server_busy", usage.server_s / elapsed),
                        ("server_ns_per_delivery", usage.server_s * 1e9 / deliveries),
                    ]);
                    return Ok(());
                }
            } else if (now - begun).as_secs_f64() > self.warmup {
                measured = Some((now, proc::Snapshot::take(&self.pids)));
            }
            batch(&mut request, &mut expected);
            let mut sent = 0;
            for c in all.iter_mut() {
                c.got = 0;
            }
            flush(&mut all[0].sock, &request, &mut sent)?;
            let mut missing = all.len();
            let sent_at = Instant::now();
            while missing > 0 {
                if sent_at.elapsed() > Duration::from_secs(30) {
                    return Err(format!("{missing} connections did not get a batch within 30 s").into());
                }
                if let Err(e) = poll.poll(&mut events, Some(Duration::from_secs(1))) {
                    if e.kind() == ErrorKind::Interrupted {
                        continue;
                    }
                    return Err(e.into());
                }
                for event in &events {
                    let at = event.token().0;
                    if at == 0 {
                        flush(&mut all[0].sock, &request, &mut sent)?;
                    }
                    missing -= usize::from(read(&mut all[at], &expected, &mut buf)?);
                }
            }
            if measured.is_some() {
                batches += 1;
                latencies.record(ns(sent_at.elapsed()))?;
            }
        }
    }
}

/// Sends as much of the request as the socket takes.
fn flush(sock: &mut TcpStream, request: &[u8], sent: &mut usize) -> Res<()> {
    while *sent < request.len() {
        match sock.write(&request[*sent..]) {
            Ok(n) => *sent += n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => break,
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Reads and checks bytes that have come. Returns whether they completed the batch.
fn read(c: &mut Conn, expected: &[u8], buf: &mut [u8]) -> Res<bool> {
    let before = c.got;
    loop {
        match c.sock.read(buf) {
            Ok(0) => return Err("the server closed a connection".into()),
            Ok(n) => {
                if expected.get(c.got..c.got + n) != Some(&buf[..n]) {
                    let got = String::from_utf8_lossy(&buf[..n.min(120)]);
                    return Err(
                        format!("a delivery does not verify: got {got:?} at {} of a batch", c.got).into()
                    );
                }
                c.got += n;
                // All of it is here: what came too much would be found by the next batch.
                if c.got == expected.len() {
                    return Ok(before < c.got);
                }
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
    }
}
