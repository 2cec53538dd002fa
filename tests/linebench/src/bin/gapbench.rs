//! gapbench: replies and gaps over time, seen by clients that each wait for one reply.
//!
//! Each client sends a line, checks the reply byte for byte, and sends its next line. If the server
//! closes its connection, the client dials again every millisecond until it is connected, and sends
//! another line. A gap is the time between two replies to one client. One thread, one epoll.

use linebench::batch::{Batch, Proto};
use linebench::figures::{Times, ns, times, us};
use linebench::{Res, net};
use mio::{Events, Interest, Poll, Token, net::TcpStream};
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const HELP: &str = "\
gapbench [OPTIONS] HOST:PORT      replies and gaps over time, of clients that wait for one reply each

  -c, --conns N      clients (50)
  -t, --time SECS    length of the measurement (30)
  -w, --warmup SECS  not measured (0.5)
  -b, --bucket MS    length of a bucket (100)
      --proto NAME   as linebench has it (echo)

Prints `begun` when the measurement begins, then one JSON object: for each bucket the replies and
the longest gap that ended in it, in microseconds; the 99th percentile of all gaps; connections that
the server closed; and attempts to dial that failed.
";

/// Time between two attempts to dial.
const DIAL_EVERY: Duration = Duration::from_millis(1);

/// Length of a line with its newline, in bytes.
const LINE_LEN: usize = 32;

/// Options, as the help describes them.
struct Opts {
    addr: SocketAddr,
    conns: usize,
    time: Duration,
    warmup: Duration,
    bucket: Duration,
    proto: Proto,
}

fn parse_args() -> Res<Opts> {
    use lexopt::prelude::*;
    let (mut conns, mut time, mut warmup, mut bucket_ms) = (50, 30.0, 0.5, 100);
    let (mut proto, mut addr) = (Proto::Echo, None);
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Short('c') | Long("conns") => conns = args.value()?.parse()?,
            Short('t') | Long("time") => time = args.value()?.parse()?,
            Short('w') | Long("warmup") => warmup = args.value()?.parse()?,
            Short('b') | Long("bucket") => bucket_ms = args.value()?.parse()?,
            Long("proto") => proto = args.value()?.string()?.parse()?,
            Short('h') | Long("help") => {
                print!("{HELP}");
                std::process::exit(0);
            }
            Value(v) if addr.is_none() => addr = Some(v.string()?.parse()?),
            _ => return Err(arg.unexpected().into()),
        }
    }
    if conns == 0 || bucket_ms == 0 {
        return Err("need --conns >= 1, --bucket >= 1".into());
    }
    Ok(Opts {
        addr: addr.ok_or("HOST:PORT is missing (--help)")?,
        conns,
        time: Duration::from_secs_f64(time),
        warmup: Duration::from_secs_f64(warmup),
        bucket: Duration::from_millis(bucket_ms),
        proto,
    })
}

/// Replies and gaps of each bucket.
struct Timeline {
    begin: Instant,
    bucket: Duration,
    replies: Vec<u64>,
    gap_us: Vec<u64>,
    /// All gaps.
    gaps: Times,
    /// Connections that took a line and that the server then closed, since the measurement began.
    closed: u64,
    /// Attempts to connect that failed, since the measurement began.
    refused: u64,
}

impl Timeline {
    /// Begins a timeline with as many buckets as cover the time.
    fn new(begin: Instant, time: Duration, bucket: Duration) -> Timeline {
        let buckets = time.as_nanos().div_ceil(bucket.as_nanos()) as usize;
        Timeline {
            begin,
            bucket,
            replies: vec![0; buckets],
            gap_us: vec![0; buckets],
            gaps: times(),
            closed: 0,
            refused: 0,
        }
    }

    /// Counts a reply and the gap that it ended. Replies outside the measurement do not count.
    fn reply(&mut self, now: Instant, gap: Duration) {
        let Some(since) = now.checked_duration_since(self.begin) else { return };
        let at = (since.as_nanos() / self.bucket.as_nanos()) as usize;
        if at < self.replies.len() {
            self.replies[at] += 1;
            self.gap_us[at] = self.gap_us[at].max(gap.as_micros() as u64);
            self.gaps.saturating_record(ns(gap));
        }
    }

    /// Counts a connection that failed.
    fn failed(&mut self, established: bool) {
        if Instant::now() >= self.begin {
            *(if established { &mut self.closed } else { &mut self.refused }) += 1;
        }
    }

    /// Counts the gap of a client that still waits when the measurement ends.
    fn waiting(&mut self, gap: Duration) {
        if let Some(last) = self.gap_us.last_mut() {
            *last = (*last).max(gap.as_micros() as u64);
        }
    }

    /// Prints the timeline as one JSON object.
    fn print(&self) {
        let list = |of: &[u64]| of.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
        println!(
            "{{\"bucket_ms\":{},\"p99_us\":{:.0},\"closed\":{},\"refused\":{},\"replies\":[{}],\"gap_us\":[{}]}}",
            self.bucket.as_millis(),
            us(&self.gaps, 0.99),
            self.closed,
            self.refused,
            list(&self.replies),
            list(&self.gap_us)
        );
    }
}

/// Failure of a client.
enum Failure {
    /// The connection failed: the client dials again.
    Connection,
    /// A reply does not verify: the run ends.
    Reply(String),
}

impl From<io::Error> for Failure {
    fn from(_: io::Error) -> Failure {
        Failure::Connection
    }
}

/// Client with the line it waits for.
struct Client {
    number: usize,
    batch: Batch,
    sock: Option<TcpStream>,
    /// The server's kernel accepted the connection.
    established: bool,
    sent: usize,
    got: usize,
    last_reply: Instant,
}

impl Client {
    fn new(number: usize, proto: Proto) -> Client {
        let batch = Batch::new(number, 1, LINE_LEN, proto);
        Client { number, batch, sock: None, established: false, sent: 0, got: 0, last_reply: Instant::now() }
    }

    /// Begins to connect. The server counts lines anew on the new connection.
    fn dial(&mut self, poll: &Poll, addr: SocketAddr) -> Result<(), Failure> {
        let mut sock = net::begin_connect(addr, 0)?;
        let both = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut sock, Token(self.number), both)?;
        (self.sock, self.established) = (Some(sock), false);
        self.batch.count = 0;
        self.next_line();
        Ok(())
    }

    /// Makes the next line, which has not been sent.
    fn next_line(&mut self) {
        self.batch.renumber();
        (self.sent, self.got) = (0, 0);
    }

    /// Sends and reads until the socket has no room and no data. A complete reply is followed
    /// by the next line.
    fn go_on(&mut self, buf: &mut [u8], timeline: &mut Timeline) -> Result<(), Failure> {
        loop {
            self.flush()?;
            let Some(sock) = &mut self.sock else { return Ok(()) };
            let n = match sock.read(buf) {
                Ok(0) => return Err(Failure::Connection),
                Ok(n) => n,
                Err(e) if must_wait(&e) => return Ok(()),
                Err(e) => return Err(e.into()),
            };
            if self.batch.exp.get(self.got..self.got + n) != Some(&buf[..n]) {
                let (got, want) = (&buf[..n.min(120)], &self.batch.exp[self.got..]);
                let [got, want] = [got, want].map(String::from_utf8_lossy);
                return Err(Failure::Reply(format!("a reply does not verify: got {got:?}, want {want:?}")));
            }
            self.got += n;
            if self.got == self.batch.exp.len() {
                let now = Instant::now();
                timeline.reply(now, now - self.last_reply);
                self.last_reply = now;
                self.batch.count += 1;
                self.next_line();
            }
        }
    }

    /// Sends as much of the line as the socket takes.
    fn flush(&mut self) -> Result<(), Failure> {
        let Some(sock) = &mut self.sock else { return Ok(()) };
        while self.sent < self.batch.req.len() {
            match sock.write(&self.batch.req[self.sent..]) {
                Ok(n) => (self.sent, self.established) = (self.sent + n, true),
                Err(e) if must_wait(&e) => break,
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }
}

/// Tells whether the socket is connecting, or has no room or no data now.
fn must_wait(e: &io::Error) -> bool {
    matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected)
}

/// Runs the clients until the measurement ends. Fails if a reply does not verify.
fn run(o: &Opts) -> Res<Timeline> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    let mut buf = vec![0u8; 64 * 1024];
    let mut clients: Vec<_> = (0..o.conns).map(|n| Client::new(n, o.proto)).collect();
    let begin = Instant::now() + o.warmup;
    let mut timeline = Timeline::new(begin, o.time, o.bucket);
    let (mut begun, mut dial_at) = (false, Instant::now());
    loop {
        let now = Instant::now();
        if now >= begin && !begun {
            println!("begun");
            begun = true;
        }
        if now >= begin + o.time {
            break;
        }
        if now >= dial_at {
            for client in clients.iter_mut().filter(|c| c.sock.is_none()) {
                if client.dial(&poll, o.addr).is_err() {
                    timeline.failed(false);
                }
            }
            dial_at = now + DIAL_EVERY;
        }
        match poll.poll(&mut events, Some(DIAL_EVERY)) {
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            let client = &mut clients[event.token().0];
            match client.go_on(&mut buf, &mut timeline) {
                Ok(()) => {}
                Err(Failure::Connection) => {
                    client.sock = None;
                    timeline.failed(client.established);
                }
                Err(Failure::Reply(text)) => return Err(text.into()),
            }
        }
    }
    // A client that never got its reply would otherwise have no gap at all.
    for client in &clients {
        timeline.waiting(client.last_reply.elapsed());
    }
    Ok(timeline)
}

fn main() -> Res<()> {
    run(&parse_args()?)?.print();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// Runs one client for two seconds against a server that treats each connection with `serve`.
    fn run_against(serve: fn(usize, std::net::TcpStream)) -> Res<Timeline> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let addr = listener.local_addr()?;
        std::thread::spawn(move || {
            listener.incoming().enumerate().for_each(|(n, stream)| serve(n, stream.expect("a connection")));
        });
        let proto = Proto::Tally;
        run(&Opts { addr, conns: 1, time: ms(2000), warmup: ms(0), bucket: ms(100), proto })
    }

    /// Answers `most` lines as tally does, then closes the connection.
    fn tally(stream: std::net::TcpStream, most: usize) {
        for (n, line) in BufReader::new(&stream).lines().map_while(Result::ok).take(most).enumerate() {
            if writeln!(&stream, "{} {line}", n + 1).is_err() {
                break;
            }
        }
    }

    #[test]
    fn a_gap_counts_in_the_bucket_in_which_it_ends() {
        let begin = Instant::now();
        let mut timeline = Timeline::new(begin, ms(250), ms(100));
        timeline.reply(begin + ms(99), ms(3));
        timeline.reply(begin + ms(199), ms(150));
        timeline.reply(begin + ms(101), ms(2));
        timeline.reply(begin + ms(300), ms(900));
        timeline.waiting(ms(50));
        assert_eq!(timeline.replies, [1, 2, 0]);
        assert_eq!(timeline.gap_us, [3_000, 150_000, 50_000]);
    }

    #[test]
    fn replies_of_the_warmup_do_not_count() {
        let begin = Instant::now() + ms(100);
        let mut timeline = Timeline::new(begin, ms(100), ms(100));
        timeline.reply(begin - ms(1), ms(50));
        assert_eq!((timeline.replies, timeline.gap_us), (vec![0], vec![0]));
    }

    #[test]
    fn a_closed_connection_is_counted_and_the_client_goes_on() -> Res<()> {
        let timeline = run_against(|n, stream| tally(stream, if n < 3 { 1 } else { usize::MAX }))?;
        assert_eq!(timeline.closed, 3);
        assert!(timeline.replies.iter().sum::<u64>() > 3, "{:?}", timeline.replies);
        Ok(())
    }

    #[test]
    fn a_wrong_reply_ends_the_run() {
        let error = run_against(|_, mut stream| _ = stream.write_all(b"2 hello\n")).err();
        assert!(error.is_some_and(|e| e.to_string().contains("does not verify")));
    }
}
