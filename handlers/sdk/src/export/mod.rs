//! C ABI of a handler: what [`export!`](crate::export!) makes public, and the only unsafe code of
//! the SDK.
//!
//! | file | what it holds |
//! | --- | --- |
//! | [`note`] | the ELF note, built at compile time |
//! | [`entry_points`] | the functions that the host calls |
//! | `framing` | the framing of a service, also one of the author's |
//! | `borrowed` | bytes from the host, and for its sinks |
//! | `host_calls` | the functions that a turn calls on the host |
//!
//! Every function that the host calls catches panics, and believes what the ABI promises of its
//! arguments.

mod borrowed;
#[doc(hidden)]
pub mod entry_points;
mod framing;
mod host_calls;
#[doc(hidden)]
pub mod note;

#[doc(hidden)]
pub use crate::bounds::FromSettings;

/// Makes a library of services: the entry function, and the note that describes it.
///
/// Called once in a crate, with all of its services: `export!(Echo, Tally);`
///
/// ```
/// use greenroom_handler::testing::TestHost;
/// use greenroom_handler::{Handler, Result, Turn, export, handler};
///
/// struct Echo;
/// #[handler]
/// impl Handler for Echo {
///     const SERVICE: &'static str = "echo";
///     fn message(&self, turn: &mut Turn, line: &[u8]) -> Result {
///         turn.send_line(line);
///         Ok(())
///     }
/// }
///
/// struct Discard;
/// #[handler]
/// impl Handler for Discard {
///     const SERVICE: &'static str = "discard";
/// }
///
/// export!(Echo, Discard);
///
/// let mut host = TestHost::<Echo>::new("{}").unwrap().with::<Discard>("{}").unwrap();
/// let (echo, discard) = (host.open(), host.open_by("discard"));
/// assert_eq!((host.line(echo, "hi"), host.line(discard, "hi")), ("hi\n".into(), "".into()));
/// ```
#[macro_export]
macro_rules! export {
    ($($service:ty),+ $(,)?) => {
        const _: () = $crate::export::note::check_names(&[$(<$service as $crate::Handler>::SERVICE),+]);

        const _: () = {
            const PARTS: &[&[u8]] = &[
                $crate::export::note::HEAD,
                concat!("\nentry=greenroom_entry_", module_path!(), "\nlibrary=", env!("CARGO_CRATE_NAME")).as_bytes(),
                if cfg!(panic = "unwind") { b"\npanic=unwind" } else { b"\npanic=abort" },
                $(
                    b"\nservice=", <$service as $crate::Handler>::SERVICE.as_bytes(),
                    b":", &$crate::export::note::digits(<$service as $crate::Handler>::STATE_VERSION),
                )+
                b"\n",
            ];
            #[used]
            #[unsafe(link_section = ".note.greenroom")]
            static NOTE: $crate::export::note::Note<{ $crate::export::note::note_len(PARTS) }> = $crate::export::note::Note::new(PARTS);
        };

        /// Entry of the library, by the name that its note gives. It has the module's path, so that
        /// merged doc tests, which are modules of one crate, do not collide.
        #[doc(hidden)]
        #[unsafe(export_name = concat!("greenroom_entry_", module_path!()))]
        pub extern "C" fn one_export_takes_all_services() -> *const $crate::export::entry_points::Library {
            static LIBRARY: $crate::export::entry_points::Once = $crate::export::entry_points::Once::new();
            LIBRARY.get(env!("CARGO_CRATE_NAME"), || vec![$($crate::export::entry_points::service::<$service>()),+])
        }
    };
}
