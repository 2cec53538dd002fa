//! tokio_websocket_echo PORT: WebSocket echo on tokio-tungstenite, with one thread.
//!
//! Messages that came together are answered by one write: the replies are flushed once no further
//! message is there. The read buffer is small: tungstenite fills all of it with zeros before each
//! read, which is half of all time with its default of 128 KiB.

use futures_util::{FutureExt, SinkExt, StreamExt};
use linebench::Res;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// Bytes of a read: more than a batch of the benchmark has.
const READ_BYTES: usize = 4096;

/// Serves one connection until it ends.
async fn serve(stream: TcpStream) -> Result<(), Error> {
    let config = WebSocketConfig::default().read_buffer_size(READ_BYTES);
    let mut peer = tokio_tungstenite::accept_async_with_config(stream, Some(config)).await?;
    while let Some(message) = peer.next().await {
        let mut next = Some(message?);
        while let Some(message) = next {
            if message.is_text() || message.is_binary() {
                peer.feed(message).await?;
            }
            next = peer.next().now_or_never().flatten().transpose()?;
        }
        peer.flush().await?;
    }
    Ok(())
}

fn main() -> Res<()> {
    let port: u16 = std::env::args().nth(1).ok_or("tokio_websocket_echo PORT")?.parse()?;
    tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            // An error ends its connection, which the client reports.
            tokio::spawn(serve(stream));
        }
    })
}
