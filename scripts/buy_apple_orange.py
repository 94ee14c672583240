"""
Apples and oranges with tax
===========================

Two apples and three oranges with 10% tax, forward and backward (section 5.4.2).
"""

from pathlib import Path

from xpnet.examples import build
from xpnet.layers import AddLayer, MulLayer

apple, apple_num, orange, orange_num, tax = 100, 2, 150, 3, 1.1

mul_apple_layer = MulLayer()
mul_orange_layer = MulLayer()
add_apple_orange_layer = AddLayer()
mul_tax_layer = MulLayer()

apple_price = mul_apple_layer.forward(apple, apple_num)
orange_price = mul_orange_layer.forward(orange, orange_num)
all_price = add_apple_orange_layer.forward(apple_price, orange_price)
price = mul_tax_layer.forward(all_price, tax)

dprice = 1
dall_price, dtax = mul_tax_layer.backward(dprice)
dapple_price, dorange_price = add_apple_orange_layer.backward(dall_price)
dorange, dorange_num = mul_orange_layer.backward(dorange_price)
dapple, dapple_num = mul_apple_layer.backward(dapple_price)

print(f"price        {price:g}")
print(f"dapple_num   {dapple_num:g}")
print(f"dapple       {dapple:g}")
print(f"dorange      {dorange:g}")
print(f"dorange_num  {dorange_num:g}")
print(f"dtax         {dtax:g}")

Path("buy_apple_orange.html").write_text(build("apple-orange").to_html(), encoding="utf-8")  # as a graph
