//! JSON and Automerge: the root map mirrors a JSON object.
//!
//! # Writing
//! Only differences are written, so that a value which is there already makes no change and nobody's concurrent edit
//! is overwritten by a value that did not move. Keys that the object lacks are deleted. Maps and lists are compared
//! recursively; in a list the common beginning and end stay, the items between are compared pair by pair, and the
//! rest is inserted or deleted. Integers become Int (Uint above [`i64::MAX`]), other numbers F64, strings scalar strings;
//! but where a Text object stands, its characters are edited and it stays a Text object.
//!
//! # Reading
//! Text reads as a string, counters and timestamps (Unix milliseconds) as numbers, bytes as a base64 string (RFC 4648, padded).
//! NaN, infinities and scalars of later Automerge versions read as null. Of conflicting values the one that Automerge
//! shows is read. Keys come in the order of their code points. Writing back what was read changes nothing.

use automerge::transaction::{Transactable, Transaction};
use automerge::{AutomergeError, ObjId, ObjType, Prop, ROOT, ReadDoc, ScalarValue, Value};
use data_encoding::BASE64;
use serde_json::{Map, Number, Value as Json};

/// Deepest nesting of objects and lists that is written or read, the root included. Half of what `serde_json` parses,
/// and far below what would use up a thread's stack.
pub const MAX_DEPTH: usize = 64;

/// A document is nested deeper than [`MAX_DEPTH`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the value is nested deeper than {MAX_DEPTH} levels")]
pub struct TooDeep;

/// Whether the value is nested no deeper than [`MAX_DEPTH`].
pub(crate) fn check_depth(value: &Json) -> Result<(), TooDeep> {
    fn check(value: &Json, left: usize) -> Result<(), TooDeep> {
        match value {
            Json::Object(_) | Json::Array(_) if left == 0 => Err(TooDeep),
            Json::Object(map) => map.values().try_for_each(|item| check(item, left - 1)),
            Json::Array(list) => list.iter().try_for_each(|item| check(item, left - 1)),
            _ => Ok(()),
        }
    }
    check(value, MAX_DEPTH)
}

/// Makes the root equal to `object`, whose depth has been checked.
pub(crate) fn write(tx: &mut Transaction<'_>, object: &Map<String, Json>) -> Result<(), AutomergeError> {
    write_map(tx, &ROOT, object)
}

/// The document as a JSON object.
pub(crate) fn read(doc: &impl ReadDoc) -> Result<Json, TooDeep> {
    read_object(doc, &ROOT, ObjType::Map, MAX_DEPTH)
}

fn write_map(tx: &mut Transaction<'_>, map: &ObjId, new: &Map<String, Json>) -> Result<(), AutomergeError> {
    for key in keys(tx, map) {
        if !new.contains_key(&key) {
            tx.delete(map, key)?;
        }
    }
    for (key, value) in new {
        write_value(tx, map, Prop::from(key.as_str()), value)?;
    }
    Ok(())
}

fn write_list(tx: &mut Transaction<'_>, list: &ObjId, new: &[Json]) -> Result<(), AutomergeError> {
    let old_len = tx.length(list);
    let shorter = old_len.min(new.len());
    let mut start = 0;
    while start < shorter && holds(tx, list, start, new.get(start)) {
        start += 1;
    }
    let mut kept = 0;
    while kept < shorter - start && holds(tx, list, old_len - kept - 1, new.get(new.len() - kept - 1)) {
        kept += 1;
    }
    let (old_end, new_end) = (old_len - kept, new.len() - kept);
    for _ in new_end..old_end {
        tx.delete(list, new_end)?;
    }
    for (at, value) in new.iter().enumerate().take(new_end).skip(start) {
        if at < old_end {
            write_value(tx, list, Prop::Seq(at), value)?;
        } else if let Some(kind) = container(value) {
            let object = tx.insert_object(list, at, kind)?;
            fill(tx, &object, value)?;
        } else {
            tx.insert(list, at, scalar(value))?;
        }
    }
    Ok(())
}

fn write_value(tx: &mut Transaction<'_>, parent: &ObjId, prop: Prop, new: &Json) -> Result<(), AutomergeError> {
    let old = tx.get(parent, prop.clone())?;
    match (old.map(|(value, id)| (value.into_owned(), id)), new) {
        (Some((Value::Object(ObjType::Map | ObjType::Table), id)), Json::Object(_))
        | (Some((Value::Object(ObjType::List), id)), Json::Array(_)) => fill(tx, &id, new),
        (Some((Value::Object(ObjType::Text), id)), Json::String(text)) => {
            if tx.text(&id)? == *text {
                return Ok(());
            }
            tx.update_text(&id, text)
        }
        (Some((Value::Scalar(old), _)), new) if read_scalar(&old) == *new => Ok(()),
        (_, new) => match container(new) {
            Some(kind) => {
                let object = tx.put_object(parent, prop, kind)?;
                fill(tx, &object, new)
            }
            None => tx.put(parent, prop, scalar(new)),
        },
    }
}

fn fill(tx: &mut Transaction<'_>, object: &ObjId, new: &Json) -> Result<(), AutomergeError> {
    match new {
        Json::Object(map) => write_map(tx, object, map),
        Json::Array(list) => write_list(tx, object, list),
        _ => Ok(()),
    }
}

fn container(value: &Json) -> Option<ObjType> {
    match value {
        Json::Object(_) => Some(ObjType::Map),
        Json::Array(_) => Some(ObjType::List),
        _ => None,
    }
}

fn scalar(value: &Json) -> ScalarValue {
    match value {
        Json::Bool(flag) => ScalarValue::Boolean(*flag),
        Json::String(text) => ScalarValue::Str(text.as_str().into()),
        Json::Number(number) => {
            let int = number.as_i64().map(ScalarValue::Int);
            let uint = || number.as_u64().map(ScalarValue::Uint);
            let float = || number.as_f64().map(ScalarValue::F64);
            int.or_else(uint).or_else(float).unwrap_or(ScalarValue::Null)
        }
        Json::Null | Json::Array(_) | Json::Object(_) => ScalarValue::Null,
    }
}

/// Whether the item reads as `expected`. `expected` bounds the depth.
fn holds(doc: &impl ReadDoc, parent: &ObjId, prop: impl Into<Prop>, expected: Option<&Json>) -> bool {
    let (Ok(Some((value, id))), Some(expected)) = (doc.get(parent, prop), expected) else {
        return false;
    };
    match (value, expected) {
        (Value::Object(ObjType::Map | ObjType::Table), Json::Object(map)) => {
            doc.length(&id) == map.len() && map.iter().all(|(key, item)| holds(doc, &id, key.as_str(), Some(item)))
        }
        (Value::Object(ObjType::List), Json::Array(list)) => {
            doc.length(&id) == list.len() && list.iter().enumerate().all(|(at, item)| holds(doc, &id, at, Some(item)))
        }
        (Value::Object(ObjType::Text), Json::String(text)) => doc.text(&id).is_ok_and(|old| old == *text),
        (Value::Scalar(old), expected) => read_scalar(&old) == *expected,
        _ => false,
    }
}

fn read_object(doc: &impl ReadDoc, object: &ObjId, kind: ObjType, left: usize) -> Result<Json, TooDeep> {
    if kind == ObjType::Text {
        return Ok(Json::String(doc.text(object).unwrap_or_default()));
    }
    if left == 0 {
        return Err(TooDeep);
    }
    if kind == ObjType::List {
        let mut list = Vec::new();
        for at in 0..doc.length(object) {
            list.push(read_value(doc, object, Prop::Seq(at), left - 1)?);
        }
        return Ok(Json::Array(list));
    }
    let mut map = Map::new();
    for key in keys(doc, object) {
        let value = read_value(doc, object, Prop::from(key.as_str()), left - 1)?;
        map.insert(key, value);
    }
    Ok(Json::Object(map))
}

/// Apart from the recursion, because the library's iterator takes several KiB of stack.
#[inline(never)]
fn keys(doc: &impl ReadDoc, map: &ObjId) -> Vec<String> {
    doc.keys(map).collect()
}

fn read_value(doc: &impl ReadDoc, parent: &ObjId, prop: Prop, left: usize) -> Result<Json, TooDeep> {
    match doc.get(parent, prop) {
        Ok(Some((Value::Object(kind), id))) => read_object(doc, &id, kind, left),
        Ok(Some((Value::Scalar(scalar), _))) => Ok(read_scalar(&scalar)),
        // Not reached: the key or index was just listed by the same document.
        Ok(None) | Err(_) => Ok(Json::Null),
    }
}

fn read_scalar(scalar: &ScalarValue) -> Json {
    match scalar {
        ScalarValue::Bytes(bytes) => Json::String(BASE64.encode(bytes)),
        ScalarValue::Str(text) => Json::String(text.to_string()),
        ScalarValue::Int(number) | ScalarValue::Timestamp(number) => Json::from(*number),
        ScalarValue::Uint(number) => Json::from(*number),
        ScalarValue::F64(number) => Number::from_f64(*number).map_or(Json::Null, Json::Number),
        ScalarValue::Counter(counter) => Json::from(i64::from(counter)),
        ScalarValue::Boolean(flag) => Json::Bool(*flag),
        ScalarValue::Null | ScalarValue::Unknown { .. } => Json::Null,
    }
}

#[cfg(test)]
mod tests {
    use automerge::{ActorId, Automerge};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn blank() -> Automerge {
        Automerge::new().with_actor(ActorId::from([1; 16]))
    }

    /// Writes the value; says how many operations that took.
    fn put(doc: &mut Automerge, value: &Json) -> usize {
        let mut tx = doc.transaction();
        write(&mut tx, value.as_object().expect("an object")).expect("writable");
        let operations = tx.pending_ops();
        tx.commit();
        operations
    }

    fn any_json() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            any::<i64>().prop_map(Json::from),
            any::<u64>().prop_map(Json::from),
            any::<f64>().prop_map(|n| Number::from_f64(n).map_or(Json::Null, Json::Number)),
            ".{0,8}".prop_map(Json::from),
        ];
        leaf.prop_recursive(4, 48, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Json::Array),
                prop::collection::btree_map("[a-c]{0,2}", inner, 0..6)
                    .prop_map(|map| Json::Object(map.into_iter().collect())),
            ]
        })
    }

    fn any_object() -> impl Strategy<Value = Json> {
        prop::collection::btree_map("[a-c]{0,2}|.{0,3}", any_json(), 0..6)
            .prop_map(|map| Json::Object(map.into_iter().collect()))
    }

    proptest! {
        #[test]
        fn what_is_put_is_got_and_putting_it_again_changes_nothing(first in any_object(), second in any_object()) {
            let mut doc = blank();
            put(&mut doc, &first);
            prop_assert_eq!(read(&doc), Ok(first));
            put(&mut doc, &second);
            prop_assert_eq!(read(&doc), Ok(second.clone()));
            prop_assert_eq!(put(&mut doc, &second), 0);
        }
    }

    #[test]
    fn writing_back_what_was_read_changes_nothing_for_any_kind_of_value() {
        let mut doc = blank();
        let mut tx = doc.transaction();
        let text = tx.put_object(ROOT, "text", ObjType::Text).expect("text");
        tx.splice_text(&text, 0, 0, "hé").expect("splice");
        for (key, value) in [
            ("bytes", ScalarValue::Bytes(vec![0, 255])),
            ("counter", ScalarValue::counter(5)),
            ("time", ScalarValue::Timestamp(-7)),
            ("uint", ScalarValue::Uint(8)),
            ("nan", ScalarValue::F64(f64::NAN)),
        ] {
            tx.put(ROOT, key, value).expect("put");
        }
        let list = tx.put_object(ROOT, "list", ObjType::List).expect("list");
        tx.insert_object(&list, 0, ObjType::Text).expect("text");
        tx.commit();

        let value = read(&doc).expect("shallow");
        let expected = json!({
            "text": "hé", "bytes": "AP8=", "counter": 5, "time": -7, "uint": 8, "nan": null, "list": [""]
        });
        assert_eq!(value, expected);
        assert_eq!(put(&mut doc, &value), 0);
    }

    #[test]
    fn a_text_object_stays_one_when_its_string_changes() {
        let mut doc = blank();
        let mut tx = doc.transaction();
        let text = tx.put_object(ROOT, "t", ObjType::Text).expect("text");
        tx.splice_text(&text, 0, 0, "hello world").expect("splice");
        tx.commit();

        let mut other = doc.fork().with_actor(ActorId::from([2; 16]));
        put(&mut doc, &json!({"t": "hello there world"}));
        put(&mut other, &json!({"t": "hello world!"}));
        doc.merge(&mut other).expect("merge");
        assert_eq!(read(&doc), Ok(json!({"t": "hello there world!"})));
    }

    #[test]
    fn only_differences_are_written() {
        let mut doc = blank();
        put(&mut doc, &json!({"a": {"x": 1, "y": [1, 2, 3, 4]}, "b": 1}));
        assert_eq!(put(&mut doc, &json!({"a": {"x": 1, "y": [1, 2, 9, 4]}, "b": 1})), 1);
        assert_eq!(put(&mut doc, &json!({"a": {"x": 1, "y": [1, 9, 4]}, "b": 1})), 1);
        assert_eq!(put(&mut doc, &json!({"a": {"x": 1, "y": [1, 9, 7, 4]}})), 2);
    }

    #[test]
    fn concurrent_puts_of_different_keys_both_survive() {
        let mut doc = blank();
        put(&mut doc, &json!({"a": 1, "l": [{"n": 1}, {"n": 2}]}));
        let mut other = doc.fork().with_actor(ActorId::from([2; 16]));
        put(&mut doc, &json!({"a": 2, "l": [{"n": 1}, {"n": 5}]}));
        put(&mut other, &json!({"a": 1, "b": 3, "l": [{"n": 4}, {"n": 2}]}));
        doc.merge(&mut other).expect("merge");
        let both = json!({"a": 2, "b": 3, "l": [{"n": 4}, {"n": 5}]});
        assert_eq!(read(&doc), Ok(both));
    }

    #[test]
    fn what_is_nested_too_deeply_is_refused_both_ways() {
        let nested = |depth: usize| (1..depth).fold(json!({}), |inner, _| json!({"k": inner}));
        assert_eq!(check_depth(&nested(MAX_DEPTH)), Ok(()));
        assert_eq!(check_depth(&nested(MAX_DEPTH + 1)), Err(TooDeep));

        let mut doc = blank();
        put(&mut doc, &nested(MAX_DEPTH));
        assert_eq!(read(&doc), Ok(nested(MAX_DEPTH)));

        let mut doc = blank();
        let mut tx = doc.transaction();
        let mut inner = ROOT;
        for _ in 0..100_000 {
            inner = tx.put_object(&inner, "k", ObjType::Map).expect("map");
        }
        tx.commit();
        assert_eq!(read(&doc), Err(TooDeep));
    }
}
