-- include common.lua
-- Leases, and records under versions. ARGV: P, what to do, and what that takes.
--
--   P_chervil.lease-of.<name>   string  "<token>:<owner>"; expires when it is not renewed
--   P_chervil.tokens            hash    name of a lease -> the last token
--   P_chervil.records.<table>   hash    key -> "<version>:<data>"
--   P_chervil.table.<table>     hash    versions: the last one given; changes: the last one
--                                       given by put or delete
--   P_chervil.pending.<table>   hash    task id -> message that is to be sent still
--   P_chervil.changes.<table>   channel

local call = redis.call

local function record_version(table, key)
  local stored = call('HGET', P .. '_chervil.records.' .. table, key)
  return stored and tonumber(string.match(stored, '^%d+')) or 0
end

-- Stores a record if the present one is the wanted one; -1: any, 0: none.
local function store_record(table, key, wanted, version, data)
  if wanted >= 0 and record_version(table, key) ~= wanted then
    return false
  end
  local value = string.format('%d:', version) .. data
  call('HSET', P .. '_chervil.records.' .. table, key, value)
  return true
end

local function reserve(table, count)
  return call('HINCRBY', P .. '_chervil.table.' .. table, 'versions', count) - count
end

local function changed(table, version)
  call('HSET', P .. '_chervil.table.' .. table, 'changes', version)
  call('PUBLISH', P .. '_chervil.changes.' .. table, version)
end

local act = {}

-- name, owner, milliseconds; answers {owner, token, milliseconds left}
function act.acquire(name, owner, life)
  local key = P .. '_chervil.lease-of.' .. name
  local token, present = string.match(call('GET', key) or '', '^(%d+):(.*)$')
  if token and present ~= owner then
    return { present, tonumber(token), call('PTTL', key) }
  end
  token = token or call('HINCRBY', P .. '_chervil.tokens', name, 1)
  call('SET', key, token .. ':' .. owner, 'PX', life)
  return { owner, tonumber(token), tonumber(life) }
end

-- name, token
function act.release(name, token)
  if call('HGET', P .. '_chervil.tokens', name) == token then
    call('DEL', P .. '_chervil.lease-of.' .. name)
    call('HINCRBY', P .. '_chervil.tokens', name, 1)
  end
  return 1
end

-- table, how many, then for each: key, version, data; answers the new versions
function act.put(table, count)
  count = tonumber(count)
  local version, answer, any = reserve(table, count), {}, false
  for number = 1, count do
    local at = 2 + 3 * number
    local stored = store_record(
      table, ARGV[at], tonumber(ARGV[at + 1]), version + number, ARGV[at + 2])
    answer[number] = stored and version + number or 0
    any = any or stored
  end
  if any then
    changed(table, version + count)
  end
  return answer
end

-- table, keys; answers how many there were
function act.delete(table)
  local keys = { unpack(ARGV, 4) }
  local count = each_thousand('HDEL', P .. '_chervil.records.' .. table, keys)
  if count > 0 then
    changed(table, reserve(table, 1) + 1)
  end
  return count
end

-- Where the messages end that send() would store.
local function beyond(at, groups)
  for _ = 1, groups do
    at = at + 5 + tonumber(ARGV[at + 4])
  end
  return at
end

-- table, lease, token, now (Unix s), how many, then for each: key, version, data, number of
-- pending messages and of groups, pairs of id and message, groups (see send); answers the
-- new versions, or nothing when the lease is another's
function act.fire(table, lease, token, now, count)
  if call('HGET', P .. '_chervil.tokens', lease) ~= token then
    return false
  end
  count = tonumber(count)
  local version, answer, at = reserve(table, count), {}, 8
  for number = 1, count do
    local key, wanted, data, waiting, groups = unpack(ARGV, at, at + 4)
    local first = at + 5
    at = first + 2 * tonumber(waiting)
    if record_version(table, key) == tonumber(wanted) then
      for place = first, at - 1, 2 do
        call('HSET', P .. '_chervil.pending.' .. table, ARGV[place], ARGV[place + 1])
      end
      at = send(at, tonumber(groups), tonumber(now))
      store_record(table, key, -1, version + number, data)
      answer[number] = version + number
    else
      at = beyond(at, tonumber(groups))
      answer[number] = 0
    end
  end
  return answer
end

return act[ARGV[2]](unpack(ARGV, 3, math.min(#ARGV, 7)))
