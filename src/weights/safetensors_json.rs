//! The JSON of safetensors headers and shard indices, read into plain lists: keys may not repeat,
//! and nothing is kept that is not used.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Most dimensions of a tensor.
const MAX_DIMS: usize = 8;

/// One tensor's entry in a header, unchecked.
pub(super) struct Info {
    pub name: String,
    pub dtype: String,
    pub shape: Vec<usize>,
    pub offsets: [usize; 2],
}

/// Reads a header: every key but `__metadata__` is a tensor. Tensors of the same name are left
/// for the caller to find.
pub(super) struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Vec<Info>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<Info>, A::Error> {
        let mut infos = Vec::new();
        let mut metadata = false;
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                if std::mem::replace(&mut metadata, true) {
                    return Err(A::Error::duplicate_field("__metadata__"));
                }
                map.next_value::<Metadata>()?;
                continue;
            }
            let Fields { dtype, shape, offsets } = map.next_value()?;
            infos.push(Info { name, dtype, shape, offsets });
        }
        Ok(infos)
    }
}

struct Fields {
    dtype: String,
    shape: Vec<usize>,
    offsets: [usize; 2],
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a tensor's object of dtype, shape and data_offsets")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let (mut dtype, mut shape, mut offsets) = (None, None, None);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "dtype" => once(&mut dtype, "dtype", map.next_value()?)?,
                "shape" => once(&mut shape, "shape", map.next_value::<Shape>()?.0)?,
                "data_offsets" => once(&mut offsets, "data_offsets", map.next_value()?)?,
                _ => {
                    return Err(A::Error::unknown_field(
                        &super::table::shown(&key).to_string(),
                        &["dtype", "shape", "data_offsets"],
                    ));
                }
            }
        }
        Ok(Fields {
            dtype: dtype.ok_or_else(|| A::Error::missing_field("dtype"))?,
            shape: shape.ok_or_else(|| A::Error::missing_field("shape"))?,
            offsets: offsets.ok_or_else(|| A::Error::missing_field("data_offsets"))?,
        })
    }
}

fn once<T, E: Error>(slot: &mut Option<T>, name: &'static str, value: T) -> Result<(), E> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(E::duplicate_field(name)),
    }
}

struct Shape(Vec<usize>);

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ShapeVisitor)
    }
}

struct ShapeVisitor;

impl<'de> Visitor<'de> for ShapeVisitor {
    type Value = Shape;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a shape of at most {MAX_DIMS} dimensions")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Shape, A::Error> {
        let mut shape = Vec::new();
        while let Some(dim) = seq.next_element()? {
            if shape.len() == MAX_DIMS {
                return Err(A::Error::invalid_length(MAX_DIMS + 1, &self));
            }
            shape.push(dim);
        }
        Ok(Shape(shape))
    }
}

/// `__metadata__`: an object of strings, checked and dropped.
struct Metadata;

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Strings;
        impl<'de> Visitor<'de> for Strings {
            type Value = Metadata;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Metadata, A::Error> {
                let mut seen = HashSet::new();
                while let Some(key) = map.next_key::<String>()? {
                    map.next_value::<String>()?;
                    if seen.contains(&key) {
                        let key = super::table::shown(&key);
                        return Err(A::Error::custom(format!("__metadata__: duplicate key {key}")));
                    }
                    seen.insert(key);
                }
                Ok(Metadata)
            }
        }
        deserializer.deserialize_map(Strings)
    }
}

/// Reads a shard index into `(tensor, file)` pairs in the order of the file.
pub(super) struct IndexVisitor;

impl<'de> Visitor<'de> for IndexVisitor {
    type Value = Vec<(String, String)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with weight_map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut pairs = None;
        while let Some(key) = map.next_key::<String>()? {
            if key == "weight_map" {
                once(&mut pairs, "weight_map", map.next_value::<Pairs>()?.0)?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        pairs.ok_or_else(|| A::Error::missing_field("weight_map"))
    }
}

struct Pairs(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("weight_map, an object of tensor names to file names")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Visit)
    }
}
