//! Typed parameters from JSON in which a number or a truth value may be a text.
//!
//! A template always gives a text: `"{{ params.n }}"` becomes `"5"`. So where a kind takes a number, a text that is exactly
//! a number in the notation of JSON stands for it, and `true` and `false` stand for truth values. Nothing is guessed: no
//! blanks, no sign `+`, no leading zeros, no fraction where a whole number is wanted. Everything else is read as it is, and
//! what is wrong names its path, the text and what is wanted.

use std::fmt;

use serde::{
    Deserializer,
    de::{
        self, DeserializeOwned, DeserializeSeed, EnumAccess, Error as _, MapAccess, SeqAccess, VariantAccess,
        Visitor,
    },
    forward_to_deserialize_any,
};
use serde_json::{Error, Number, Value};

/// Characters of a text that a message repeats.
const SHOWN_CHARS_MAX: usize = 60;

/// A parameter that is not what a kind takes.
#[derive(Debug, thiserror::Error)]
#[error("{problem}")]
pub(crate) struct Misread {
    /// Where it stands; empty for the whole.
    pub(crate) path: String,
    /// What is wrong.
    pub(crate) problem: String,
}

/// Reads typed parameters.
///
/// # Errors
/// Where `with` does not have the shape of `T`.
pub(crate) fn read<T: DeserializeOwned>(with: &Value) -> Result<T, Misread> {
    serde_path_to_error::deserialize(Parameter(with)).map_err(|error| {
        let path = error.path().to_string();
        // A misfit of the whole has the path ".".
        Misread { path: path.trim_start_matches('.').to_owned(), problem: error.inner().to_string() }
    })
}

/// A value of the parameters, as a source for typed ones.
#[derive(Clone, Copy)]
struct Parameter<'p>(&'p Value);

impl<'p> Parameter<'p> {
    /// Returns the number that a text stands for; `None` where the value is no text.
    fn number(self, wanted: impl fmt::Display) -> Result<Option<Number>, Error> {
        let Value::String(text) = self.0 else { return Ok(None) };
        // The parser would skip blanks around a number.
        let is_bare = !text.starts_with(|c: char| c.is_whitespace()) && !text.ends_with(char::is_whitespace);
        match serde_json::from_str::<Number>(text) {
            Ok(number) if is_bare => Ok(Some(number)),
            _ => Err(not(text, wanted)),
        }
    }
}

fn not(text: &str, wanted: impl fmt::Display) -> Error {
    let mut shown: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    if shown.len() < text.len() {
        shown.push_str("...");
    }
    Error::custom(format_args!("the text {shown:?} is not {wanted}"))
}

/// Reads whole numbers; a text must hold one that fits.
macro_rules! whole_numbers {
    ($($method:ident $type:ty, $visit:ident;)*) => {$(
        fn $method<V: Visitor<'p>>(self, visitor: V) -> Result<V::Value, Error> {
            let wanted = format!("a whole number from {} to {}", <$type>::MIN, <$type>::MAX);
            let Some(number) = self.number(&wanted)? else { return self.0.$method(visitor) };
            let signed = number.as_i64().and_then(|number| <$type>::try_from(number).ok());
            match signed.or_else(|| <$type>::try_from(number.as_u64()?).ok()) {
                Some(number) => visitor.$visit(number),
                None => Err(not(self.0.as_str().unwrap_or_default(), wanted)),
            }
        }
    )*};
}

impl<'p> Deserializer<'p> for Parameter<'p> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'p>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Array(items) => visitor.visit_seq(Items(items.iter())),
            Value::Object(entries) => visitor.visit_map(Entries { entries: entries.iter(), value: None }),
            scalar => scalar.deserialize_any(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'p>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::String(text) => match text.as_str() {
                "true" => visitor.visit_bool(true),
                "false" => visitor.visit_bool(false),
                _ => Err(not(text, "true or false")),
            },
            other => other.deserialize_bool(visitor),
        }
    }

    whole_numbers! {
        deserialize_i8 i8, visit_i8;
        deserialize_i16 i16, visit_i16;
        deserialize_i32 i32, visit_i32;
        deserialize_i64 i64, visit_i64;
        deserialize_u8 u8, visit_u8;
        deserialize_u16 u16, visit_u16;
        deserialize_u32 u32, visit_u32;
        deserialize_u64 u64, visit_u64;
    }

    fn deserialize_f32<V: Visitor<'p>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'p>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.number("a number")?.and_then(|number| number.as_f64()) {
            Some(number) => visitor.visit_f64(number),
            None => self.0.deserialize_f64(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'p>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'p>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'p>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Value::Object(entries) if entries.len() == 1 => {
                let Some((variant, content)) = entries.iter().next() else {
                    return self.0.deserialize_enum(name, variants, visitor);
                };
                visitor.visit_enum(Variant { name: variant, content: Self(content) })
            }
            other => other.deserialize_enum(name, variants, visitor),
        }
    }

    forward_to_deserialize_any! {
        <V: Visitor<'p>>
        i128 u128 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier
        ignored_any
    }
}

/// The elements of a list.
struct Items<'p>(std::slice::Iter<'p, Value>);

impl<'p> SeqAccess<'p> for Items<'p> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'p>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        self.0.next().map(|item| seed.deserialize(Parameter(item))).transpose()
    }
}

/// The entries of a map.
struct Entries<'p> {
    entries: serde_json::map::Iter<'p>,
    value: Option<&'p Value>,
}

impl<'p> MapAccess<'p> for Entries<'p> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'p>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some((key, value)) = self.entries.next() else { return Ok(None) };
        self.value = Some(value);
        seed.deserialize(de::value::BorrowedStrDeserializer::<Error>::new(key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'p>>(&mut self, seed: V) -> Result<V::Value, Error> {
        seed.deserialize(Parameter(self.value.take().unwrap_or(&Value::Null)))
    }
}

/// A map with one entry, as the variant of an enum with its content.
struct Variant<'p> {
    name: &'p str,
    content: Parameter<'p>,
}

impl<'p> EnumAccess<'p> for Variant<'p> {
    type Error = Error;
    type Variant = Parameter<'p>;

    fn variant_seed<V: DeserializeSeed<'p>>(self, seed: V) -> Result<(V::Value, Parameter<'p>), Error> {
        Ok((seed.deserialize(de::value::BorrowedStrDeserializer::<Error>::new(self.name))?, self.content))
    }
}

impl<'p> VariantAccess<'p> for Parameter<'p> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        if self.0.is_null() { Ok(()) } else { Err(Error::custom("nothing is expected behind this word")) }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'p>>(self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'p>>(self, _length: usize, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'p>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_any(visitor)
    }
}

#[cfg(test)]
mod tests;
