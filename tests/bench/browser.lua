-- Eleven headers as a browser sends them; three of them vary by request.
local n = 0
request = function()
   n = n + 1
   return wrk.format("GET", "/items/" .. n % 997 .. "?page=" .. n % 31, {
      ["Host"] = "shop.example:8000",
      ["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
      ["Accept"] = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
      ["Accept-Language"] = "en-GB,en;q=0.5",
      ["Accept-Encoding"] = "gzip, deflate, br",
      ["Referer"] = "http://shop.example:8000/items/" .. n % 499,
      ["Cookie"] = "session=" .. string.format("%032x", n) .. "; theme=dark",
      ["Upgrade-Insecure-Requests"] = "1",
      ["Sec-Fetch-Dest"] = "document",
      ["Sec-Fetch-Mode"] = "navigate",
      ["X-Request-ID"] = string.format("%016x", n * 7919),
   })
end
