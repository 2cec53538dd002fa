//! crowd: many peers that behave badly, until it is killed.
//!
//! Readers subscribe to a topic of the service `bench`, and never read. One more connection speaks
//! there again and again. Writers send a byte now and then, and never end a line. A peer that is
//! closed connects again.

use linebench::{Res, net};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Runs until it is killed. Prints `here` once the crowd is in its place; the measurement
/// begins then.
fn main() -> Res<()> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let [kind, count, addr] = &args[..] else { return Err("crowd readers|writers COUNT HOST:PORT".into()) };
    let (count, addr): (usize, SocketAddr) = (count.parse()?, addr.parse()?);
    let readers = kind == "readers";
    let join = |_| -> Res<TcpStream> {
        let socket = net::socket(addr, 3)?;
        // Small buffers fill up early.
        socket.set_recv_buffer_size(4096)?;
        socket.connect(&addr.into())?;
        let mut stream: TcpStream = socket.into();
        stream.write_all(if readers { b"join crowd\n" } else { b"never" })?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    };
    let mut all = (0..count).map(join).collect::<Res<Vec<_>>>()?;
    // Few and long: the crowd is to be slow, not the load heavy.
    let say = format!("say crowd {}\n", "z".repeat(7900));
    let mut speaker = net::connect(addr, 4)?;
    if readers {
        // Buffers of the kernel fill up first, and the host keeps the rest.
        for _ in 0..450 {
            speaker.write_all(say.as_bytes())?;
            std::thread::sleep(Duration::from_millis(8));
        }
    }
    println!("here");
    for round in 0.. {
        std::thread::sleep(Duration::from_millis(5));
        if readers {
            if round % 20 == 0 {
                speaker.write_all(say.as_bytes())?;
            }
            for at in (round * 10 % count..count).take(10) {
                // A peer that was closed finds out when it writes.
                if all[at].write(b"\n").is_err() {
                    all[at] = join(at)?;
                }
            }
        } else {
            for at in (round * 10 % count..count).take(10) {
                if all[at].write(b"x").is_err() {
                    all[at] = join(at)?;
                }
            }
        }
    }
    Ok(())
}
