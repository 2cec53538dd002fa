//! Encoding of states and tables' values: what is stored can be read again.
//!
//! Some types of serde write what they can't read, or read it as something else. An untagged enum
//! that holds an `IpAddr` writes bytes and looks for text. `Some(None)` is written as `None`. Such
//! data must not be stored: no later turn, and no later build, could read it.
//!
//! | check | when | cost |
//! | --- | --- | --- |
//! | levels, up to [`DEPTH_MAX`] | while it is written | a comparison for each value |
//! | `Some` of nothing | while it is written | a comparison for each nothing |
//! | it is read again | behind that | one more decoding |
//!
//! The bytes are those of `rmp_serde::to_vec_named`. A turn that would store data which fails a
//! check fails itself, so the data before it stays. Whether a type can be read depends on the
//! value, so each value is read; a batch of turns encodes its state once.

use greenroom_state::nesting::{DEPTH_MAX, too_deep};
use serde::de::DeserializeOwned;
use serde::ser::{
    Error, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};
use std::cell::RefCell;

/// Encodes a value that is to be stored, and reads it again. An error names the field, if a field
/// is at fault while it is written.
pub(crate) fn stored<T: Serialize + DeserializeOwned>(value: &T) -> Result<Vec<u8>, String> {
    let bytes = encode(value)?;
    match read::<T>(&bytes) {
        Ok(_) => Ok(bytes),
        Err(e) => Err(match e.strip_prefix("field ").and_then(|e| e.split_once(": ")) {
            Some((field, why)) => format!("field {field}: it couldn't be read again: {why}"),
            None => format!("it couldn't be read again: {e}"),
        }),
    }
}

/// Reads a value. An error names the field at fault, in front: an operator who gave the value must
/// find it.
pub(crate) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    rmp_serde::from_slice(bytes).map_err(|e| unread::<T>(bytes).unwrap_or_else(|| e.to_string()))
}

/// Words on bytes that can't be read, with the field that is at fault; `None`: they can be read.
#[cold]
fn unread<T: DeserializeOwned>(bytes: &[u8]) -> Option<String> {
    let mut from = rmp_serde::Deserializer::from_read_ref(bytes);
    let error = serde_path_to_error::deserialize::<_, T>(&mut from).err()?;
    let (field, why) = (error.path().to_string(), error.inner());
    let is_known = error.path().iter().next().is_some() && !field.contains('?');
    Some(if is_known { format!("field {field}: {why}") } else { why.to_string() })
}

/// Encodes a value that another type reads, as the next step of a migration does.
pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, String> {
    let path = RefCell::new(Vec::new());
    let mut out = rmp_serde::Serializer::new(Vec::with_capacity(128)).with_struct_map();
    let place = Place { path: &path, level: 1, some: false };
    match value.serialize(Checked { inner: &mut out, place }) {
        Ok(()) => Ok(out.into_inner()),
        Err(e) => {
            let mut path = path.into_inner();
            path.reverse();
            Err(match path.join(".") {
                field if field.is_empty() => e.to_string(),
                field => format!("field {field}: {e}"),
            })
        }
    }
}

/// Place of a value in the whole.
#[derive(Clone, Copy)]
struct Place<'a> {
    /// Names of the fields around an error, the innermost first. Each field adds its name when an
    /// error passes through it, so success costs nothing.
    path: &'a RefCell<Vec<&'static str>>,
    /// Level of the value, from 1.
    level: usize,
    /// Whether the value is all that a `Some` holds.
    some: bool,
}

impl<'a> Place<'a> {
    /// Place inside a value, so many levels below it.
    fn below(self, levels: usize) -> Place<'a> {
        Place { level: self.level + levels, some: false, ..self }
    }

    /// Adds a field's name to the path of an error.
    fn name<T, E>(self, name: &'static str, result: Result<T, E>) -> Result<T, E> {
        if result.is_err() {
            self.path.borrow_mut().push(name);
        }
        result
    }

    /// Refuses nothing as the content of a `Some`: both are written alike.
    fn nothing<E: Error>(self) -> Result<(), E> {
        match self.some {
            true => Err(E::custom("it is Some of nothing, which would be read again as None")),
            false => Ok(()),
        }
    }
}

/// Value at a place. Whatever serializer it is given is wrapped in [`Checked`].
struct At<'a, T: ?Sized> {
    value: &'a T,
    place: Place<'a>,
}

impl<T: Serialize + ?Sized> Serialize for At<'_, T> {
    #[inline]
    fn serialize<S: Serializer>(&self, inner: S) -> Result<S::Ok, S::Error> {
        if self.place.level > DEPTH_MAX {
            return Err(S::Error::custom(too_deep()));
        }
        self.value.serialize(Checked { inner, place: self.place })
    }
}

/// Serializer, or what it returns for a container, that checks what passes through it.
struct Checked<'a, S> {
    inner: S,
    place: Place<'a>,
}

impl<'a, S> Checked<'a, S> {
    /// Wraps the container that the serializer returns, whose items are so many levels below it.
    #[inline]
    fn container<C, E>(
        self,
        levels: usize,
        make: impl FnOnce(S) -> Result<C, E>,
    ) -> Result<Checked<'a, C>, E> {
        Ok(Checked { inner: make(self.inner)?, place: self.place.below(levels) })
    }
}

/// Methods that pass a plain value on.
macro_rules! plain {
    ($($name:ident($type:ty)),+ $(,)?) => {
        $(
            #[inline]
            fn $name(self, v: $type) -> Result<S::Ok, S::Error> {
                self.inner.$name(v)
            }
        )+
    };
}

impl<'a, S: Serializer> Serializer for Checked<'a, S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Checked<'a, S::SerializeSeq>;
    type SerializeTuple = Checked<'a, S::SerializeTuple>;
    type SerializeTupleStruct = Checked<'a, S::SerializeTupleStruct>;
    type SerializeTupleVariant = Checked<'a, S::SerializeTupleVariant>;
    type SerializeMap = Checked<'a, S::SerializeMap>;
    type SerializeStruct = Checked<'a, S::SerializeStruct>;
    type SerializeStructVariant = Checked<'a, S::SerializeStructVariant>;

    plain!(
        serialize_bool(bool),
        serialize_i8(i8),
        serialize_i16(i16),
        serialize_i32(i32),
        serialize_i64(i64),
        serialize_i128(i128),
        serialize_u8(u8),
        serialize_u16(u16),
        serialize_u32(u32),
        serialize_u64(u64),
        serialize_u128(u128),
        serialize_f32(f32),
        serialize_f64(f64),
        serialize_char(char),
        serialize_str(&str),
        serialize_bytes(&[u8]),
        serialize_unit_struct(&'static str),
    );

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        self.place.nothing()?;
        self.inner.serialize_none()
    }
    fn serialize_unit(self) -> Result<S::Ok, S::Error> {
        self.place.nothing()?;
        self.inner.serialize_unit()
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.inner.serialize_some(&At { value, place: Place { some: true, ..self.place } })
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.inner.serialize_newtype_struct(name, &At { value, place: self.place })
    }
    fn serialize_unit_variant(
        self,
        n: &'static str,
        at: u32,
        variant: &'static str,
    ) -> Result<S::Ok, S::Error> {
        self.inner.serialize_unit_variant(n, at, variant)
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        at: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        // A variant with content is a map of one entry.
        let item = At { value, place: self.place.below(1) };
        self.place.name(variant, self.inner.serialize_newtype_variant(name, at, variant, &item))
    }
    fn serialize_seq(self, len: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        self.container(1, |s| s.serialize_seq(len))
    }
    fn serialize_tuple(self, len: usize) -> Result<Self::SerializeTuple, S::Error> {
        self.container(1, |s| s.serialize_tuple(len))
    }
    fn serialize_tuple_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleStruct, S::Error> {
        self.container(1, |s| s.serialize_tuple_struct(name, len))
    }
    fn serialize_tuple_variant(
        self,
        name: &'static str,
        at: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        self.container(2, |s| s.serialize_tuple_variant(name, at, variant, len))
    }
    fn serialize_map(self, len: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        self.container(1, |s| s.serialize_map(len))
    }
    fn serialize_struct(self, name: &'static str, len: usize) -> Result<Self::SerializeStruct, S::Error> {
        self.container(1, |s| s.serialize_struct(name, len))
    }
    fn serialize_struct_variant(
        self,
        name: &'static str,
        at: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        self.container(2, |s| s.serialize_struct_variant(name, at, variant, len))
    }
}

/// Containers without names.
macro_rules! items {
    ($($container:ident::$item:ident),+ $(,)?) => {
        $(
            impl<C: $container> $container for Checked<'_, C> {
                type Ok = C::Ok;
                type Error = C::Error;

                #[inline]
                fn $item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
                    self.inner.$item(&At { value, place: self.place })
                }
                fn end(self) -> Result<C::Ok, C::Error> {
                    self.inner.end()
                }
            }
        )+
    };
}

items!(
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field,
);

/// Containers whose items are fields.
macro_rules! fields {
    ($($container:ident),+ $(,)?) => {
        $(
            impl<C: $container> $container for Checked<'_, C> {
                type Ok = C::Ok;
                type Error = C::Error;

                #[inline]
                fn serialize_field<T: Serialize + ?Sized>(
                    &mut self,
                    name: &'static str,
                    value: &T,
                ) -> Result<(), C::Error> {
                    let item = At { value, place: self.place };
                    self.place.name(name, self.inner.serialize_field(name, &item))
                }
                fn skip_field(&mut self, name: &'static str) -> Result<(), C::Error> {
                    self.inner.skip_field(name)
                }
                fn end(self) -> Result<C::Ok, C::Error> {
                    self.inner.end()
                }
            }
        )+
    };
}

fields!(SerializeStruct, SerializeStructVariant);

impl<C: SerializeMap> SerializeMap for Checked<'_, C> {
    type Ok = C::Ok;
    type Error = C::Error;

    #[inline]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
        self.inner.serialize_key(&At { value, place: self.place })
    }
    #[inline]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
        self.inner.serialize_value(&At { value, place: self.place })
    }
    fn end(self) -> Result<C::Ok, C::Error> {
        self.inner.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use greenroom_state::json;
    use serde::{Deserialize, Serialize};
    use std::collections::BTreeMap;
    use std::net::IpAddr;

    /// Type of every kind that serde knows.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct All {
        plain: (bool, i8, u64, f32, f64, char, String),
        wide: (i128, u128),
        none: Option<u8>,
        some: Option<Wrapped>,
        unit: (),
        list: Vec<Kind>,
        map: BTreeMap<u32, Vec<Option<u8>>>,
        ip: IpAddr,
        #[serde(flatten)]
        more: BTreeMap<String, u8>,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Wrapped(u8);
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Nothing;
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Kind {
        Unit,
        New(Nothing),
        Pair(u8, Option<u8>),
        Named { a: Option<u8> },
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Origin {
        Ip(IpAddr),
        Name(String),
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Outer {
        inner: Twice,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Twice {
        list: Vec<Kind>,
        twice: Option<Option<u64>>,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Chain(Vec<Chain>);

    /// The bytes are those of rmp-serde, for every kind.
    #[test]
    fn the_encoding_is_as_it_was() {
        let all = All {
            plain: (true, -5, u64::MAX, 1.5, 0.1, 'ü', "x".into()),
            wide: (-1, 1),
            none: None,
            some: Some(Wrapped(3)),
            unit: (),
            list: vec![Kind::Unit, Kind::New(Nothing), Kind::Pair(1, None), Kind::Named { a: None }],
            map: BTreeMap::from([(7, vec![None, Some(1)])]),
            ip: "::1".parse().unwrap(),
            more: BTreeMap::from([("z".into(), 1)]),
        };
        // Read as itself too, but for the flattened part, whose other fields serde passes by.
        assert_eq!(encode(&all).unwrap(), rmp_serde::to_vec_named(&all).unwrap());
        let named = Kind::Named { a: Some(1) };
        assert_eq!(stored(&named).unwrap(), rmp_serde::to_vec_named(&named).unwrap());
    }

    /// A value that can't be read again, or would be read as another one, is refused.
    #[test]
    fn what_is_stored_can_be_read() {
        assert!(stored(&Origin::Name("a".into())).is_ok());
        let why = stored(&Origin::Ip("127.0.0.1".parse().unwrap())).unwrap_err();
        assert!(why.starts_with("it couldn't be read again: "), "{why}");
        let outer = |twice| Outer { inner: Twice { list: Vec::new(), twice } };
        assert!(stored(&outer(None)).is_ok() && stored(&outer(Some(Some(1)))).is_ok());
        assert_eq!(
            stored(&outer(Some(None))).unwrap_err(),
            "field inner.twice: it is Some of nothing, which would be read again as None"
        );
        assert!(stored(&Some(())).is_err() && stored(&Some(Some(Some(5)))).is_ok());
        assert!(stored(&vec![None, Some(1)]).is_ok());
    }

    /// The last level that is stored is the last one that a dump shows.
    #[test]
    fn a_value_has_levels_up_to_a_bound() {
        let chain = |levels| (1..levels).fold(Chain(Vec::new()), |c, _| Chain(vec![c]));
        let last = stored(&chain(DEPTH_MAX)).unwrap();
        assert_eq!(json::from_json(&json::to_json(&last).unwrap()).unwrap(), last);
        assert_eq!(stored(&chain(DEPTH_MAX + 1)).unwrap_err(), too_deep());
        // A variant with content has two levels.
        #[derive(Serialize, Deserialize)]
        enum List {
            Cons(u8, Box<List>),
            Nil,
        }
        let list = |n| (0..n).fold(List::Nil, |l, i| List::Cons(i, Box::new(l)));
        let last = stored(&list(63)).unwrap();
        assert!(json::to_json(&last).is_ok());
        assert_eq!(stored(&list(64)).unwrap_err(), too_deep());
    }
}
