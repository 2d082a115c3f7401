-- An envelope without its mark, and how often it was delivered before.
local function unmarked(message)
  if string.byte(message, 4) ~= 104 then -- not {"ch; a number is compared without a copy
    return message, 0
  end
  local deliveries, start = string.match(message, '^{"chervil": ?%[(%d+), ?%d+%], ?()')
  if not start then
    return message, 0
  end
  return '{' .. string.sub(message, start), tonumber(deliveries)
end

-- Moves messages from a list into a claims hash, and puts them into an answer: the number
-- of the next claim, and how many there were.
local function claim(list, most, claims, number, answer)
  local call = redis.call
  local messages = call('LRANGE', list, -most, -1)
  local count = #messages
  if count == 0 then
    return number, 0
  end
  local pairs_, size, filled = {}, 0, #answer
  for place = count, 1, -1 do
    local envelope, before = unmarked(messages[place])
    pairs_[size + 1] = number .. ':' .. (before + 1) .. ':' .. list
    pairs_[size + 2] = envelope
    size = size + 2
    number = number + 1
  end
  for first = 1, size, 1000 do -- Lua's stack is limited
    call('HSET', claims, unpack(pairs_, first, math.min(first + 999, size)))
  end
  for place = 1, size do
    answer[filled + place] = pairs_[place]
  end
  call('LTRIM', list, 0, -count - 1)
  return number, count
end

-- Claims from the lists KEYS[1] to KEYS[lists], in that order, up to a limit, and looks.
-- To look is also what makes the server tell of the next change (client-side caching), so
-- the last look comes after all that is changed.
--
-- Answers {1 when nothing is ready, '', 1 when there are revocations, claim, envelope...}
local function claim_and_look(lists, limit, claims, number, revoked)
  local call, answer = redis.call, { 0, '', 0 }
  local claimed, place, count = 0, 1, 0
  if limit > 0 then
    number, claimed = claim(KEYS[1], limit, claims, number, answer)
  end
  while claimed < limit or limit == 0 do
    local full = call('EXISTS', revoked, unpack(KEYS, 1, lists))
    if full > 0 then
      answer[3] = call('EXISTS', revoked)
      full = full - answer[3]
    end
    if full == 0 then
      answer[1] = 1
      return answer
    elseif limit == 0 then
      return answer
    end
    while full > 0 and claimed < limit and place < lists do
      place = place + 1
      number, count = claim(KEYS[place], limit - claimed, claims, number, answer)
      claimed = claimed + count
      full = full - math.min(count, 1)
    end
  end
  answer[3] = call('EXISTS', revoked)
  return answer
end
