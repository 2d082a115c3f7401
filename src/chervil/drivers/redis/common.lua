-- What is stored under which key; P is the option global_keyprefix, and a list is
-- <queue> or <queue><sep><priority step>, as kombu names them.
--
--   P<list>                    list    envelopes; pushed on the left, served from the right
--   P_chervil.queues           hash    queue -> Unix ms until which one of us serves it
--   P_chervil.consumers        hash    consumer -> number of its present connection
--   P_chervil.lease.<consumer> string  node name and its queues, one a line; expires when
--                                      it is not renewed
--   P_chervil.claims.<consumer> hash   "<number>:<deliveries>:<list>" -> envelope
--   P_chervil.delayed.<queue>  zset    score: Unix time when due; see delayed_member
--   P_chervil.revoked          zset    task id, score: Unix time until which it counts
--   P_chervil.letters          string  counter of dead letters
--   P_chervil.dead             zset    number of a dead letter, score: the same
--   P_chervil.dead.<queue>     zset    the same, of one queue
--   P_chervil.letter.<number>  hash    queue, list, envelope, reason, detail, deliveries, died_at
--   P_chervil.status.<id>      string  "<crc32 of the result>:<status>", for results from
--                                      whose beginning the status cannot be read
--
-- A result is published on the channel of its key, for whoever asks by its id, and again
-- for who sent the task, on the channel P_chervil.reply.<address> that its process listens
-- to anyway: "<length of the id>:<id><result>", without a result of more than 64 KiB.
--
-- A message that was claimed before carries how often, and when it came back, in front:
-- {"chervil":[2,1700000000000],"body":...}. kombu ignores the key and keeps it when it
-- puts a message back, so the count survives there too and never outlives its message.
--
-- Nothing is removed before its copy is stored: a script that the server stops half-way
-- leaves messages twice, never not at all.

local P = ARGV[1]

-- As kombu says it of what comes back: "redelivered" in the delivery_info, which is in the
-- properties, the last value of an envelope.
local function redelivered(envelope)
  local found, stop
  repeat
    found = stop
    stop = select(2, string.find(envelope, '"delivery_info": ?{', (found or 0) + 1))
  until not stop
  if not found then
    return envelope
  end
  local info, rest = string.match(envelope, '^([^}]*)(.*)$', found + 1)
  local said
  info, said = string.gsub(info, '("redelivered": ?)%a+', '%1true')
  if said == 0 then
    info = '"redelivered":true' .. (string.find(info, '%S') and ',' or '') .. info
  end
  return string.sub(envelope, 1, found) .. info .. rest
end

local function marked(envelope, deliveries, since)
  if string.byte(envelope) ~= 123 then -- no JSON object: nobody can run it anyway
    return envelope
  end
  if deliveries > 0 then
    envelope = redelivered(envelope)
  end
  return string.format('{"chervil":[%d,%d],', deliveries, since) .. string.sub(envelope, 2)
end

-- Calls a command with many arguments, some thousand at once: Lua's stack is limited.
local function each_thousand(command, key, values)
  local done = 0
  for first = 1, #values, 1000 do
    done = done + redis.call(command, key, unpack(values, first, math.min(first + 999, #values)))
  end
  return done
end

-- Members must differ even where two messages are the same bytes.
local function delayed_member(list, envelope, deliveries, unique)
  return string.format('%d:%s:%d:', deliveries, unique, #list) .. list .. envelope
end

-- List, envelope, deliveries of a member.
local function delayed_parts(member)
  local deliveries, length, start = string.match(member, '^(%d+):[^:]*:(%d+):()')
  local stop = start + tonumber(length)
  return string.sub(member, start, stop - 1), string.sub(member, stop), tonumber(deliveries)
end

-- Stores the messages that ARGV describes from place at on, groups of
--   list, due, queue, eta, n, n envelopes
-- due is empty for now. With eta, the message says itself when it is due: where none of
-- us serves the queue it goes to the list, for a Celery worker holds it back by itself.
local function send(at, groups, now)
  for _ = 1, groups do
    local list, due, queue, eta, n = unpack(ARGV, at, at + 4)
    local envelopes = { unpack(ARGV, at + 5, at + 4 + n) }
    at = at + 5 + n
    if due ~= '' and eta == '1' then
      local served = redis.call('HGET', P .. '_chervil.queues', queue)
      if not served or tonumber(served) < now * 1000 then
        due = ''
      end
    end
    if due == '' then
      each_thousand('LPUSH', list, envelopes)
    else
      for _, envelope in ipairs(envelopes) do
        local member = delayed_member(list, envelope, 0, '')
        redis.call('ZADD', P .. '_chervil.delayed.' .. queue, due, member)
      end
    end
  end
  return at
end

-- Number, deliveries and list of a claim.
local function claim_parts(field)
  local number, deliveries, list = string.match(field, '^(%d+):(%d+):(.*)$')
  return tonumber(number), tonumber(deliveries), list
end
